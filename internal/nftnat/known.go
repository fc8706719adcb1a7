package nftnat

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
)

// knownElements is what is known of the elements of the gate and block maps: looked up by
// key (lookup.go), kept by the notices of what others changed (hear.go), searched for at
// addresses that nobody named (search.go), and verified (verify.go). The shadow may be
// read at any time; all else is for who has the turn of the Kernel.
type knownElements struct {
	shadow
	conn   *wire.Conn
	ns     netns.Namespace
	table  string
	log    *slog.Logger
	settle func(context.Context) error // makes the table as wanted

	changed chan struct{} // told that the shadow changed by others' hands

	identity   identity       // of the table that was last converged
	unsettled  bool           // the table, too, is in doubt, and has to be converged
	everInside []netip.Prefix // that the table has, or had: elements may stand there
	search     search

	cursor     netip.Addr // of the walk through what is not sure
	verified   netip.Addr // of the verification
	miscounted int        // times in a row that the kernel counted otherwise
	countless  bool       // the kernel's counts of elements are not used, for tests
}
