package wire

// Attributes of linux/netfilter/nf_tables.h that golang.org/x/sys/unix lacks.
const (
	AttrTableUserdata = 6  // NFTA_TABLE_USERDATA
	AttrChainUserdata = 12 // NFTA_CHAIN_USERDATA
	AttrObjectHandle  = 6  // NFTA_OBJ_HANDLE
	AttrTableHandle   = 4  // NFTA_TABLE_HANDLE
	AttrSetHandle     = 16 // NFTA_SET_HANDLE
	AttrSetCount      = 20 // NFTA_SET_COUNT, elements in the set; newer kernels only
)
