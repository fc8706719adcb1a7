package nftnat

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
)

// knownElements are the known elements of the gate and block maps: looked up by key
// (lookup.go), kept current by the notices of others' changes (hear.go), searched for at
// unnamed addresses (search.go), and verified (verify.go). The shadow may be read at any time;
// the other fields are for the holder of the Kernel's turn.
type knownElements struct {
	shadow
	conn   *wire.Conn
	ns     netns.Namespace
	table  string
	log    *slog.Logger
	settle func(context.Context) error // makes the table as wanted

	changed chan struct{} // signalled when others changed the shadow's elements

	identity   identity       // of the table that was last converged
	unsettled  bool           // the table itself is in doubt, and has to be converged
	everInside []netip.Prefix // prefixes that the table has, or had: elements may be there
	search     search

	cursor     netip.Addr // of the walk through unsure cells
	verified   netip.Addr // of the verification
	miscounted int        // times in a row that the kernel's count differed
	countless  bool       // the kernel's counts of elements are not used, for tests
}
