package conntrack

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// A Stray is a flow that an inside address began and that left with a source that is
// neither its own nor in Options.Outside: a rule of another table translated it.
type Stray struct {
	Inside, Outside netip.Addr // its source before and after
	At              time.Time  // when its event was read
}

// strays counts stray flows and keeps the newest.
type strays struct {
	outside addrrange.Set
	count   uint64
	newest  Stray
	wake    chan struct{} // holds a token after a stray
}

// lookLocked checks an entry that began.
func (x *index) lookLocked(f *flow) {
	s := &x.strays
	if len(s.outside) == 0 || f.reply.dst == f.orig.src || s.outside.Contains(f.reply.dst) ||
		!x.inside.Contains(f.orig.src) || x.inside.Contains(f.reply.src) {
		return
	}
	s.count++
	s.newest = Stray{toAddr(f.orig.src), toAddr(f.reply.dst), time.Now()}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Strays signals that flows have left with a foreign source since the last signal. It needs
// Run.
func (t *Table) Strays() <-chan struct{} { return t.index.strays.wake }

// Strayed returns the newest stray flow and the number of them since Open.
func (t *Table) Strayed() (newest Stray, count uint64) {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	return t.index.strays.newest, t.index.strays.count
}

// SetOutside replaces Options.Outside for flows that begin from now on. A prefix that is
// not IPv4 is an error and changes nothing.
func (t *Table) SetOutside(prefixes []netip.Prefix) error {
	outside, err := rangesOf(prefixes)
	if err != nil {
		return err
	}
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	t.index.strays.outside = outside
	return nil
}
