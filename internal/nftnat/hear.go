package nftnat

import (
	"context"
	"errors"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

const (
	// lookChunk is how many addresses are looked up while nobody else may program: some
	// 8 ms.
	lookChunk = 1000

	// heardChanges is how many addresses may change in a transaction of ours that the
	// notices are on for. Their price is the kernel's, see wire.Listener.
	heardChanges = 32
)

// news is what a drain of the notices told about the table.
type news struct {
	table   bool      // something but elements of gate and block changed
	quiet   string    // the table of a new rule that masks conntrack events
	gone    bool      // rules went
	touched []address // whose elements changed
}

func (n *news) take(table string, x wire.Notice) {
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

// hear takes in what others changed since it was last called, and puts the table right.
// It costs one system call when that is nothing. What was committed before it was
// called is in the shadow afterwards; of many changed elements, that they are not sure.
func (k *Kernel) hear(ctx context.Context) error {
	var n news
	lost, err := k.notices.Drain(func(x wire.Notice) { n.take(k.options.Table, x) })
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
	defer k.known.tell() // once it is known what they hold
	if len(n.touched) > lookChunk {
		return nil // Learn, or the verification, looks at them
	}
	_, err = k.known.lookAgain(ctx, n.touched)
	return err
}

// lookAgain is look, at a table that others may be making anew.
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

// settle makes the table as wanted after others touched it. If it fails, it is due
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

// doubt makes everything unsure: others may have changed any element.
func (k *knownElements) doubt(why string) {
	k.log.Warn("elements of the nftables table are looked at again", "table", k.table, "reason", why)
	k.shadow.suspectAll()
	k.search.reset()
	k.unsettled = true
	k.tell()
}

// tell says that the shadow changed by others' hands.
func (k *knownElements) tell() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Changed tells that others changed elements, or may have: EntryAt, EntriesFrom and
// Learn say what stands. It is told once for many changes. Without Run it is told only
// when another method meets them.
func (k *Kernel) Changed() <-chan struct{} { return k.known.changed }

// unheard runs do, which makes large transactions and returns how many, without
// notices. Whether others made one meanwhile is known by the generation, which every
// transaction of the namespace counts up.
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
