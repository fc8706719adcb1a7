package nftnat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// SessionTable reads and deletes the sessions of subscribers in the kernel's conntrack table.
// Its methods may be called concurrently, and do not wait for programming.
type SessionTable struct {
	flows      *conntrack.Table
	inside     atomic.Pointer[[]netip.Prefix]
	log        *slog.Logger
	unreported unreportedCounts
}

// unreportedCounts are what calls of Reap have deleted of addresses for which they gave no receipt: it
// is in the receipt that a later call gives.
type unreportedCounts struct {
	mu sync.Mutex
	at map[netip.Addr]nat.Reaped
}

// add takes counts without a receipt.
func (u *unreportedCounts) add(counts ...nat.Reaped) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range counts {
		if c.Deleted+c.Elements == 0 {
			continue
		}
		if u.at == nil {
			u.at = map[netip.Addr]nat.Reaped{}
		}
		had := u.at[c.Inside]
		u.at[c.Inside] = nat.Reaped{Deleted: had.Deleted + c.Deleted, Elements: had.Elements + c.Elements}
	}
}

// report adds them to the receipts of their addresses.
func (u *unreportedCounts) report(receipts []nat.Reaped) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.at) == 0 {
		return
	}
	for i := range receipts {
		had := u.at[receipts[i].Inside]
		receipts[i].Deleted += had.Deleted
		receipts[i].Elements += had.Elements
		delete(u.at, receipts[i].Inside)
	}
}

// reap is the part of Reap that deletes conntrack entries.
func (t *SessionTable) reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error) {
	reaped, err := t.deleteEntries(ctx, inside)
	if err != nil {
		t.unreported.add(reaped...)
		return nil, err
	}
	proofs := reaped[:0]
	for _, r := range reaped {
		if r.Proof == nat.NotProved {
			t.unreported.add(r)
		} else {
			proofs = append(proofs, r)
		}
	}
	return proofs, nil
}

// deleteEntries deletes the conntrack entries of addresses, and returns for each the number of
// entries, and the proof that none is left, if there is one. The numbers are right with any error.
func (t *SessionTable) deleteEntries(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error) {
	outcomes, err := t.flows.Delete(ctx, inside)
	var back *conntrack.RemainingError
	switch {
	case errors.As(err, &back):
		t.log.Warn("conntrack entries of closed addresses keep coming back", "error", err)
		err = nil
	case err != nil:
		err = fmt.Errorf("reap %d addresses: %w", len(inside), err)
	}
	reaped := make([]nat.Reaped, 0, len(inside))
	for _, a := range inside {
		o := outcomes[a]
		reaped = append(reaped, nat.Reaped{Inside: a, Deleted: o.Deleted, Proof: o.Proof, At: o.At})
	}
	return reaped, err
}

// Sessions yields the kernel's sessions of all subscribers, until yield returns an error.
func (t *SessionTable) Sessions(ctx context.Context, yield func(Session) error) error {
	inside := *t.inside.Load()
	return t.flows.Dump(ctx, func(e conntrack.Entry) error {
		return yieldSessions(e, inside, yield)
	})
}

// fewBits is the length of the largest prefix whose addresses are requested one by one: 256 of
// them take less time than a dump of 1,000 entries.
const fewBits = 24

// SessionsOf is Sessions for the inside addresses of a prefix; for a /24 or less it costs only
// their own sessions. A prefix that is not IPv4 has none.
func (t *SessionTable) SessionsOf(ctx context.Context, inside netip.Prefix, yield func(Session) error) error {
	if !inside.IsValid() || !inside.Addr().Is4() {
		return ctx.Err()
	}
	all := *t.inside.Load()
	each := func(e conntrack.Entry) error {
		return yieldSessions(e, all, func(s Session) error {
			if !inside.Contains(s.Inside.Addr()) {
				return nil
			}
			return yield(s)
		})
	}
	if inside.Bits() < fewBits {
		return t.flows.Dump(ctx, each)
	}
	var addrs []netip.Addr
	for a := inside.Masked().Addr(); inside.Contains(a); a = a.Next() {
		if addrrange.InOne(all, a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return ctx.Err()
	}
	return t.flows.Entries(ctx, addrs, each)
}

func yieldSessions(e conntrack.Entry, inside []netip.Prefix, yield func(Session) error) error {
	for _, s := range SessionsIn(e, inside) {
		if err := yield(s); err != nil {
			return err
		}
	}
	return nil
}

// SessionCount returns the number of conntrack entries of an inside address. It costs one look
// into the index.
func (t *SessionTable) SessionCount(inside netip.Addr) int { return t.flows.Count(inside) }

// SessionTotal returns the number of conntrack entries of all inside addresses.
func (t *SessionTable) SessionTotal() int { return t.flows.Total() }

// PortUse returns the ports that a subscriber uses. It costs a look at each of its entries in
// the index.
func (t *SessionTable) PortUse(inside netip.Addr) nat.PortUse { return t.flows.PortUse(inside) }

// PortUses yields the subscribers that use a port, in no order, some at a time in a slice that
// it uses again. It walks through the index, and yields its lock.
func (t *SessionTable) PortUses(yield func([]conntrack.PortUser)) { t.flows.PortUses(yield) }

// Counts counts the sessions of an inside address, as the kernel's events tell.
func (t *SessionTable) Counts(inside netip.Addr) nat.SessionCounts { return t.flows.Counts(inside) }

// AddressCounts yields the inside addresses that have sessions, with their number; see
// conntrack.Table.AddressCounts.
func (t *SessionTable) AddressCounts(yield func([]conntrack.AddressCount)) {
	t.flows.AddressCounts(yield)
}

// Talking lists the inside addresses with a session to a remote host, and Talks tells it of one;
// see conntrack.Table.
func (t *SessionTable) Talking(remote conntrack.Remote, most int) (list []netip.Addr, few bool) {
	return t.flows.Talking(remote, most)
}

// Talks reports whether an inside address has a session with a remote host.
func (t *SessionTable) Talks(inside netip.Addr, remote conntrack.Remote) bool {
	return t.flows.Talks(inside, remote)
}

// IndexStats returns counts of the index's deviations from the kernel.
func (t *SessionTable) IndexStats() IndexStats {
	s := t.flows.Stats()
	return IndexStats{Overruns: s.Overruns, Missed: s.Missed, Stale: s.Stale, Passes: s.Passes}
}

// Idlers returns those of a few addresses that have no session in the kernel: a SessionCount
// of zero is a hint, since events may be missing. It ends sessions that have timed out: the
// kernel may do so, and send the event, only a minute later, and it sends none for sessions
// that began without a listener. An address that is not returned may have no session either;
// ask again in a second.
func (t *SessionTable) Idlers(ctx context.Context, inside []netip.Addr) ([]netip.Addr, error) {
	return t.flows.Idlers(ctx, inside)
}

// CountBegun, Begun, ListBegun and LookAgain tell which subscribers begin so many sessions
// that their ports have to be looked at: see conntrack.Table.
func (t *SessionTable) CountBegun(least int) { t.flows.CountBegun(least) }

// Begun signals that ListBegun lists a subscriber.
func (t *SessionTable) Begun() <-chan struct{} { return t.flows.Begun() }

// ListBegun lists the subscribers that are due for a look.
func (t *SessionTable) ListBegun() []netip.Addr { return t.flows.ListBegun() }

// LookAgain makes a subscriber due after so many more sessions.
func (t *SessionTable) LookAgain(inside netip.Addr, after int) { t.flows.LookAgain(inside, after) }

// SettledSessionsOf is SessionsOf for one address, and leaves no session out: it waits for
// packets that are on their way through the kernel. sure is false if the kernel could not say.
func (t *SessionTable) SettledSessionsOf(ctx context.Context, inside netip.Addr, yield func(Session) error) (sure bool, err error) {
	all := *t.inside.Load()
	proof, err := t.flows.SettledEntries(ctx, []netip.Addr{inside}, func(e conntrack.Entry) error {
		return yieldSessions(e, all, func(s Session) error {
			if s.Inside.Addr() != inside {
				return nil
			}
			return yield(s)
		})
	})
	return err == nil && proof != nat.NotProved, err
}

// Ports lists, in order, the ports with which an inside address has begun sessions of one
// protocol. It costs a look at each of its entries in the index.
func (t *SessionTable) Ports(inside netip.Addr, protocol uint8) []uint16 {
	return t.flows.Ports(inside, protocol)
}

// vacant reports whether the kernel certainly has no session of an inside address with a port
// of a block.
func (t *SessionTable) vacant(ctx context.Context, inside netip.Addr, b nat.Block) (bool, error) {
	vacant := true
	sure, err := t.SettledSessionsOf(ctx, inside, func(s Session) error {
		vacant = vacant && !b.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port()))
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look for sessions of %v in ports %d-%d: %w", inside, b.First, b.Last, err)
	}
	return vacant && sure, nil
}

// Idle sends each inside address whose last session just ended. It needs Run.
func (t *SessionTable) Idle() <-chan netip.Addr { return t.flows.Idle() }

// Ready is closed when the index of sessions was built. It needs Run.
func (t *SessionTable) Ready() <-chan struct{} { return t.flows.Ready() }

// KillSession deletes the conntrack entry of a session that Sessions yielded. It is no error
// if the session has ended meanwhile.
func (t *SessionTable) KillSession(ctx context.Context, s Session) error {
	return t.flows.DeleteEntry(ctx, s.Entry)
}

// IndexStats count, since the start, deviations of the index of sessions.
type IndexStats struct {
	Overruns uint64 // times the kernel dropped events for want of buffer
	Missed   uint64 // entries that an audit found and no event announced
	Stale    uint64 // entries that an audit found to have ended without an event
	Passes   uint64 // walks through the whole table, because the index could not prove
}

// One session.

// Session is one conntrack entry as seen by one subscriber. A hairpin flow,
// between two subscribers, is two Sessions. For ICMP echo the inside and
// outside ports hold the query identifier and the remote port is 0 (RFC 5508
// section 3.1).
type Session struct {
	nat.Session
	Entry conntrack.Entry // deleted by KillSession
}

// SessionsIn returns the sessions of subscribers in a conntrack entry: none, one, or two.
func SessionsIn(e conntrack.Entry, inside []netip.Prefix) []Session {
	var sessions []Session
	if addrrange.InOne(inside, e.Orig.Src) {
		s := newSession(e, nat.Outbound)
		s.Inside, s.Outside, s.Remote = ends(e.Orig, e.Reply)
		sessions = append(sessions, s)
	}
	if addrrange.InOne(inside, e.Reply.Src) {
		s := newSession(e, nat.Inbound)
		s.Inside, s.Outside, s.Remote = ends(e.Reply, e.Orig)
		sessions = append(sessions, s)
	}
	return sessions
}

func newSession(e conntrack.Entry, d nat.Direction) Session {
	return Session{nat.Session{
		Protocol: e.Orig.Protocol, Direction: d,
		State: stateOf(e), ExpiresIn: e.Timeout, Offloaded: e.Status&conntrack.StatusOffloaded != 0, Packets: e.Packets, Bytes: e.Bytes,
	}, e}
}

// ends reads the tuple whose source is the subscriber, and the opposite one. The query
// identifier of ICMP is the source port of both.
func ends(from, to conntrack.Tuple) (inside, outside, remote netip.AddrPort) {
	outsidePort, remotePort := to.DstPort, from.DstPort
	if from.Protocol == unix.IPPROTO_ICMP {
		outsidePort, remotePort = to.SrcPort, 0
	}
	return netip.AddrPortFrom(from.Src, from.SrcPort),
		netip.AddrPortFrom(to.Dst, outsidePort),
		netip.AddrPortFrom(from.Dst, remotePort)
}

// tcpStates are the kernel's enum tcp_conntrack.
var tcpStates = [...]string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT",
	"LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

func stateOf(e conntrack.Entry) string {
	switch {
	case e.Status&conntrack.StatusOffloadedHardware != 0:
		return "HW_OFFLOAD"
	case e.Status&conntrack.StatusOffloaded != 0:
		return "OFFLOAD"
	case e.Orig.Protocol == unix.IPPROTO_TCP && int(e.TCPState) < len(tcpStates):
		return tcpStates[e.TCPState]
	case e.Status&conntrack.StatusAssured != 0:
		return "ASSURED"
	case e.Status&conntrack.StatusSeenReply != 0:
		return "REPLIED"
	}
	return "UNREPLIED"
}
