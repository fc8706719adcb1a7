package nftnat

import (
	"context"
	"net/netip"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/cpubarrier"
	"golang.org/x/sys/unix"
)

// sweepWhenDue deletes, each time the table was put right, the conntrack entries that began
// while nothing translated. Where others use conntrack too, it confirms such a flow
// untranslated, and the flow would be dropped for as long as its ends try.
func (k *Kernel) sweepWhenDue(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.sweep:
			n, err := k.sweepUntranslated(ctx)
			if n > 0 {
				k.log.Warn("conntrack entries that began while nothing translated were deleted", "entries", n)
			}
			k.report(ctx, err)
		}
	}
}

// askSweep makes a sweep due.
func (k *Kernel) askSweep() {
	select {
	case k.sweep <- struct{}{}:
	default: // due already
	}
}

// sweepUntranslated deletes the entries of flows between inside and outside, begun from either
// side, whose inside address is not translated, or was translated by others into an address of
// no pool. It returns their number. It waits until packets in flight are through, then walks
// the conntrack table.
func (k *Kernel) sweepUntranslated(ctx context.Context) (deleted int, err error) {
	if err := cpubarrier.Wait(ctx); err != nil {
		return 0, err
	}
	local, err := k.routes.localAddresses()
	if err != nil {
		return 0, err
	}
	if err := k.lock(ctx); err != nil {
		return 0, err
	}
	outside := k.options.OutsidePrefixes // only replaced as a whole
	k.unlock()
	inside := *k.inside.Load()
	var found []conntrack.Entry
	err = k.flows.Dump(ctx, func(e conntrack.Entry) error {
		if untranslated(e, inside, outside, local) {
			found = append(found, e)
		}
		return nil
	})
	for _, e := range found {
		if err != nil {
			break
		}
		err = k.flows.DeleteEntry(ctx, e)
		deleted++
	}
	return deleted, err
}

// untranslated reports whether an entry belongs to a subscriber's flow that the table would
// not let begin, and that keeps the subscriber from beginning it anew. An entry whose other
// end is the machine itself, such as that of a redirected flow, is none.
func untranslated(e conntrack.Entry, inside, outside []netip.Prefix, local map[netip.Addr]bool) bool {
	incoming := contains(inside, e.Orig.Dst) && e.Reply.Src == e.Orig.Dst
	switch {
	case local[e.Orig.Src], local[e.Reply.Src]:
		return false
	case contains(inside, e.Orig.Src):
		return !contains(outside, e.Reply.Dst) && !contains(inside, e.Reply.Src)
	}
	return incoming
}

// localAddresses are the machine's own.
func (b *blackholes) localAddresses() (map[netip.Addr]bool, error) {
	list, err := b.handle.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, wrap(err, "list addresses")
	}
	local := map[netip.Addr]bool{}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			local[ip.Unmap()] = true
		}
	}
	return local, nil
}
