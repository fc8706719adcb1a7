package nftnat

import (
	"context"
	"errors"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

const (
	// lookChunk is the number of addresses looked up while the turn is held: some 8 ms.
	lookChunk = 1000

	// heardChanges is the number of addresses that one transaction of ours may change with
	// notices on. Notices cost the kernel memory and time, see wire.Listener.
	heardChanges = 32
)

// news is the content of the notices drained at once, about the table.
type news struct {
	table   bool      // something except elements of gate and block changed
	quiet   string    // the table of a new rule that masks conntrack events
	gone    bool      // rules were deleted
	touched []address // addresses whose elements changed
}

func (n *news) note(table string, x wire.Notice) {
	switch {
	case x.Command == wire.DelRule:
		n.gone = true
	case x.Command == wire.NewRule && masksEvents(x.Attrs):
		n.quiet = x.Table()
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
	if n.table || lost || k.known.unsettled {
		if err := k.settle(ctx); err != nil {
			return err
		}
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

// lookAgain is look for a table that other programs may be replacing.
func (k *knownElements) lookAgain(ctx context.Context, list []address) (wrong int, err error) {
	const attempts = 3
	for range attempts {
		if wrong, err = k.look(ctx, list); !errors.Is(err, errOtherTable) {
			return wrong, err
		}
		if err := k.settle(ctx); err != nil {
			return 0, err
		}
	}
	return 0, err
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
