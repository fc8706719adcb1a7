package nftnat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// watchInterval bounds the time until a deleted route is made anew, and until a failed
	// operation is tried again.
	watchInterval = time.Second

	// settleInterval is the time between two readings of the table without a notice.
	settleInterval = 30 * time.Second
)

// watch keeps the table and the routes as wanted until ctx ends.
func (k *Kernel) watch(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.listen(ctx) })
	g.Go(func() error { return k.tick(ctx) })
	g.Go(func() error { return k.sweepWhenDue(ctx) })
	g.Go(func() error { return k.quiet.run(ctx) })
	g.Go(func() error { return k.fast.run(ctx) })
	g.Go(func() error { return k.followLinks(ctx) })
	g.Go(func() error { return k.keepBound(ctx) })
	g.Go(func() error { return k.tellStrays(ctx) })
	g.Go(func() error {
		return k.barrier.Watch(ctx, func() error { return k.restoreBarrier(ctx) })
	})
	return g.Wait()
}

// listen puts the table right as soon as others touch it, such as by `nft flush ruleset` in a
// restart of the distribution's nftables service.
func (k *Kernel) listen(ctx context.Context) error {
	for {
		if err := k.notices.Wait(ctx); err != nil {
			return err
		}
		if err := k.lock(ctx); err != nil {
			return err
		}
		err := k.hear(ctx)
		k.unlock()
		k.report(ctx, err)
	}
}

func (k *Kernel) tick(ctx context.Context) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	settled := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-ticker.C:
			due := now.Sub(settled) >= settleInterval
			if due {
				settled = now
			}
			if err := k.ns.Check(); errors.Is(err, netns.ErrReplaced) {
				return fmt.Errorf("%w: what is programmed is in the old one; start again to serve the new one", err)
			} else if due {
				k.report(ctx, err)
			}
			k.report(ctx, k.check(ctx, due))
			k.report(ctx, k.verify(ctx))
			k.report(ctx, k.fill.look(ctx))
			k.report(ctx, k.dropCounts.read(ctx))
			k.report(ctx, k.lookAtMappings(ctx))
			k.report(ctx, k.lookAtPins(ctx))
			k.report(ctx, k.lookAtShortWay(ctx))
		}
	}
}

func (k *Kernel) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		k.log.Error("nftables table or routes cannot be put right", "table", k.options.Table, "error", err)
	}
}

// check restores missing routes, and puts the table right if that failed before; if
// whatever is set, in any case.
func (k *Kernel) check(ctx context.Context, whatever bool) error {
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed {
		return nil
	}
	if err := k.routes.restore(k.options.OutsidePrefixes); err != nil {
		return err
	}
	k.barrier.Restore()
	k.known.unsettled = k.known.unsettled || whatever
	if err := k.hear(ctx); err != nil {
		return err
	}
	if !k.known.static.asked {
		return nil // a start names the expected mappings first
	}
	if err := k.known.ensureStatic(ctx); err != nil || !whatever {
		return err
	}
	return k.known.checkStaticCount(ctx)
}

func (k *Kernel) restoreBarrier(ctx context.Context) error {
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if !k.removed {
		k.barrier.Restore()
	}
	return nil
}

// Changes of others.

const (
	// lookChunk is the number of addresses looked up while the turn is held: some 8 ms.
	lookChunk = 1000

	// heardChanges is the number of addresses that one transaction of ours may change with
	// notices on. Notices cost the kernel memory and time, see wire.Listener.
	heardChanges = 32
)

// news is the content of the notices drained at once, about the table.
type news struct {
	table   bool      // something except elements of gate, block and the static maps changed
	quiet   string    // the table of a new rule that masks conntrack events
	fast    bool      // a new flowtable, or a new rule that adds flows to one
	gone    bool      // rules or flowtables were deleted
	pins    bool      // pins changed
	touched []address // addresses whose elements changed

	staticIn, staticOut []portKey // elements of the static maps that changed
}

func (n *news) note(table string, x wire.Notice) {
	switch {
	case x.Command == wire.DelRule, x.Command == wire.DelFlowtable, x.Command == wire.DelTable:
		n.gone = true
	case x.Command == wire.NewRule && masksEvents(x.Attrs):
		n.quiet = x.Table()
	}
	if x.Command == wire.NewFlowtable || x.Command == wire.NewRule && addsFlowsTo(x.Attrs) != "" {
		n.fast = true
	}
	if x.Command == unix.NFT_MSG_NEWGEN || x.Family != unix.NFPROTO_IPV4 || x.Table() != table {
		return
	}
	if x.Command != wire.NewElements && x.Command != wire.DelElements {
		n.table = true
		return
	}
	switch nlmsg.String(nlmsg.Attr(x.Attrs, unix.NFTA_SET_ELEM_LIST_SET)) {
	case mapGate, mapBlock:
	case mapStaticIn:
		n.staticIn = appendKeys(n.staticIn, x)
		return
	case mapStaticOut:
		n.staticOut = appendKeys(n.staticOut, x)
		return
	case mapPinned, mapNarrowed:
		n.pins = true
		return
	default:
		n.table = true
		return
	}
	for _, e := range nlmsg.Attrs(nlmsg.Attr(x.Attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		if key := parseKey(e); len(key) == addressLen {
			n.touched = append(n.touched, address(key))
		}
	}
}

// appendKeys appends the keys of the elements of a static map that a notice is about.
func appendKeys(keys []portKey, x wire.Notice) []portKey {
	for _, e := range nlmsg.Attrs(nlmsg.Attr(x.Attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		if key, ok := parsePortKey(e); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// hear processes the changes of others since its last call, and puts the table right. It
// costs one system call when there are none. Afterwards the shadow has every change
// committed before the call; if many elements changed it only marks them unsure.
func (k *Kernel) hear(ctx context.Context) error {
	var n news
	lost, err := k.notices.Drain(func(x wire.Notice) { n.note(k.options.Table, x) })
	if k.removed {
		return err
	}
	if err != nil || lost {
		k.known.doubt("notices of nftables were lost")
	}
	for _, inside := range n.touched {
		k.known.suspect(inside)
	}
	k.quiet.hear(n.quiet, n.gone, lost || k.known.unsettled)
	if n.pins || lost {
		k.pinKeeper.suspect()
	}
	k.fast.hear(n.fast || lost, n.gone, k.known.unsettled)
	if n.table || lost || k.known.unsettled {
		if err := k.settle(ctx); err != nil {
			return err
		}
	}
	if err := k.known.hearStatic(ctx, n.staticIn, n.staticOut); err != nil {
		return err
	}
	if lost || len(n.touched) > lookChunk {
		if err := k.refill(ctx); err != nil {
			return err
		}
	}
	if len(n.touched) == 0 {
		return nil
	}
	defer k.known.tell() // once their elements are known
	if len(n.touched) > lookChunk {
		return nil // Learn, or the verification, looks at them
	}
	_, err = k.known.lookAgain(ctx, n.touched)
	return err
}

// settle makes the table as wanted after others touched it. If it fails, the next hear tries
// again.
func (k *Kernel) settle(ctx context.Context) error {
	k.known.unsettled = true
	changed, err := k.converge(ctx)
	if err != nil {
		return err
	}
	k.known.unsettled = false
	if changed {
		k.log.Warn("nftables table was changed by others and is put right", "table", k.options.Table)
		k.askSweep()
	}
	return nil
}

// doubt makes all cells unsure: others may have changed any element.
func (k *knownElements) doubt(why string) {
	k.log.Warn("elements of the nftables table are looked at again", "table", k.table, "reason", why)
	k.shadow.suspectAll()
	k.static.unknown = true
	k.search.reset()
	k.unsettled = true
	k.tell()
}

// tell signals that others changed the shadow's elements.
func (k *knownElements) tell() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Changed signals that others changed elements, or may have: EntryAt, EntriesFrom and Learn
// return the present ones. One signal stands for many changes. Without Run the signal comes
// only when another method meets the changes.
func (k *Kernel) Changed() <-chan struct{} { return k.known.changed }

// unheard runs do, which makes large transactions and returns their number, without notices.
// Transactions of others meanwhile show in the generation, which every transaction of the
// namespace counts up.
func (k *Kernel) unheard(ctx context.Context, do func() (transactions int, err error)) error {
	before, err := k.readGeneration(ctx)
	if err != nil {
		return err
	}
	if err := k.notices.Deafen(); err != nil {
		return err
	}
	made, doErr := do()
	if err := k.notices.Hear(); err != nil {
		k.known.doubt("notices of nftables cannot be had: " + err.Error())
		return errors.Join(doErr, err)
	}
	after, err := k.readGeneration(context.WithoutCancel(ctx))
	if err != nil || after-before != uint32(made) {
		k.known.doubt("others changed nftables during a large transaction")
	}
	return errors.Join(doErr, err)
}

// readGeneration reads the number that every nftables transaction of the
// namespace counts up.
func (k *Kernel) readGeneration(ctx context.Context) (uint32, error) {
	var generation uint32
	err := k.conn.Get(ctx, wire.GetGeneration, func(dst []byte) []byte { return dst }, func(attrs []byte) {
		generation = nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_GEN_ID))
	})
	return generation, err
}
