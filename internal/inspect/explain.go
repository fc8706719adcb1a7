package inspect

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Customer names the subscriber to explain: an inside address, or a User-Name.
type Customer struct {
	Group    string // of the address; "" for the one that serves it
	Inside   netip.Addr
	UserName string // raw octets
}

// Explanation is everything about one inside address.
type Explanation struct {
	subscriber.Key
	Subscriber *Subscriber // online there; nil for nobody
	Binding    *Binding    // live; nil for none
	NAS        *NAS        // of the subscriber, or of the last one; nil for unknown
	Limits     []LimitUse
	Sessions   nat.SessionCounts
	LastEnding *Ending   // nil for none known
	Since      time.Time // every ending from then on is known
	Drops      []nat.DropCount
	Mappings   []Mapping
}

// LimitUse is one limit of a subscriber, and how near it is to that.
type LimitUse struct {
	Limit     string // as in the configuration, or LimitBlockPorts
	Most      int
	Used      int
	Measured  bool      // Used is known
	RefusedAt time.Time // sessions were last refused at the limit; zero for never, as far as known
}

// Names of limits besides those of nat.Limit.
const (
	LimitBlockPorts  = "block_ports"                 // the ports of the blocks of the subscriber
	LimitMaxSessions = "max_sessions_per_subscriber" // of the whole daemon
)

// Reached reports whether the limit refuses new sessions now.
func (l *LimitUse) Reached() bool { return l.Measured && l.Used >= l.Most }

// near is the share of a limit, in percent, from which on a subscriber is near to it.
const near = 80

// Near reports whether the subscriber has most of what it may have.
func (l *LimitUse) Near() bool { return l.Measured && 100*l.Used >= near*l.Most }

// NewSession returns the drop that the first packet of a new session from the subscriber is
// counted as now; false if it passes.
func (e *Explanation) NewSession() (d nat.Drop, dropped bool) {
	d.Direction = nat.DropOut
	switch b := e.Binding; {
	case b == nil, b.State == nat.Cut:
		d.Reason = nat.DropNoGate
	case b.State == nat.Draining:
		d.Reason = nat.DropDraining
	case e.reached(func(name string) bool { return name != LimitBlockPorts }):
		d.Reason = nat.DropOverLimit
	case e.reached(func(name string) bool { return name == LimitBlockPorts }):
		d.Reason = nat.DropBlockFull
	default:
		return nat.Drop{}, false
	}
	return d, true
}

func (e *Explanation) reached(of func(limit string) bool) bool {
	for i := range e.Limits {
		if of(e.Limits[i].Limit) && e.Limits[i].Reached() {
			return true
		}
	}
	return false
}

// refusedAt reports whether sessions were refused at a limit, as far as known.
func (e *Explanation) refusedAt(of func(limit string) bool) bool {
	for i := range e.Limits {
		if of(e.Limits[i].Limit) && !e.Limits[i].RefusedAt.IsZero() {
			return true
		}
	}
	return false
}

// Concerns reports whether packets of this subscriber can be among those of a drop, now or
// within the last day.
func (e *Explanation) Concerns(d nat.Drop) bool {
	if now, dropped := e.NewSession(); dropped && d == now {
		return true
	}
	ofBlock := func(name string) bool { return name == LimitBlockPorts }
	switch d {
	case nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropOut}:
		return e.refusedAt(func(name string) bool { return !ofBlock(name) })
	case nat.Drop{Reason: nat.DropBlockFull, Direction: nat.DropOut}:
		return e.refusedAt(ofBlock)
	case nat.Drop{Reason: nat.DropConntrackFull, Direction: nat.DropAny}, nat.Drop{Reason: nat.DropProtocol, Direction: nat.DropOut},
		nat.Drop{Reason: nat.DropNoMapping, Direction: nat.DropIn}, nat.Drop{Reason: nat.DropInterface, Direction: nat.DropOut}:
		return true // of any subscriber
	}
	return false
}

// quietAfter is the time online from which on it stands out that there is no session.
const quietAfter = time.Minute

// Advice says what stands out, and what to do, the most important first.
func (e *Explanation) Advice(now time.Time) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch s := e.Subscriber; {
	case s == nil:
		e.adviseOffline(say)
	case s.Pending:
		say("It waits for a port block: group %s has none free. `sessionctl pool list` shows who has them; `sessionctl pool add` adds an outside prefix.", s.Group)
	case e.Binding == nil:
		say("Its port block is being programmed; ask again in a second. If it stays so, `sessionctl reconcile --dry-run` and the daemon's log say why.")
	case e.Binding.State != nat.Active:
		say("The address has just changed hands: the sessions of the holder before are being removed, then it gets a block.")
	}
	if s := e.Subscriber; s != nil {
		e.adviseOnline(s, say)
	}
	e.adviseLimits(say)
	if s := e.Subscriber; s != nil && e.Binding != nil && e.Binding.State == nat.Active && e.Sessions.Total() == 0 && now.Sub(e.Binding.AllocatedAt) > quietAfter {
		say("It has no NAT session: it sends nothing, or its packets do not reach this machine. Look at the route from the BNG, and with `tcpdump` on the inside interface.")
	}
	if len(lines) == 0 {
		say("Nothing stands out here: new sessions pass, and no limit is near. Look at name resolution, at the remote host, or with `sessionctl session list --inside %s` at the sessions that get no reply.", e.Inside)
	}
	return lines
}

func (e *Explanation) adviseOffline(say func(string, ...any)) {
	switch b := e.Binding; {
	case b != nil && !b.GraceUntil.IsZero():
		say("Nobody is online: the line was lost, and its sessions wait for it until the grace time is over. It comes back with the BNG's next Acct-Start.")
	case b != nil && b.State == nat.Draining:
		say("Nobody is online: its sessions go on until they idle out (subscriber_session_removal is off), and no new one begins.")
	case e.LastEnding != nil && e.LastEnding.Reason == subscriber.ReasonStop:
		say("Nobody is online: %s It is online again with the BNG's next Acct-Start.", endingText(e.LastEnding))
	case e.LastEnding != nil:
		say("Nobody is online: %s Ask the BNG whether it has the session; its next Acct-Start or Interim-Update brings it back.", endingText(e.LastEnding))
	default:
		say("Nobody is online, and no end is known: no accounting has come for it. Look at `sessionctl nas list` for its BNG, and at the BNG's accounting.")
	}
}

// endings are the reasons for which a record ended, in a sentence.
var endings = map[subscriber.Reason]string{
	subscriber.ReasonStop:              "the BNG sent an Acct-Stop.",
	subscriber.ReasonNASRestart:        "its BNG restarted.",
	subscriber.ReasonExpired:           "nothing was heard of it for record_ttl.",
	subscriber.ReasonAdmin:             "a person deleted it (gRPC, sessionctl).",
	subscriber.ReasonSuperseded:        "another session took its address, or it moved to another one.",
	subscriber.ReasonRemovedInDatabase: "another program deleted its record in Redis.",
	subscriber.ReasonPoolRemoved:       "its outside prefix was removed.",
}

func endingText(e *Ending) string {
	if text, ok := endings[e.Reason]; ok {
		return text
	}
	return "it ended."
}

func (e *Explanation) adviseOnline(s *Subscriber, say func(string, ...any)) {
	if s.RemovalHeld != subscriber.ReasonNone {
		say("A guard holds back its removal (%s): too many ended at once. `sessionctl removal list --kind held`, then confirm or refuse.", s.RemovalHeld)
	}
	if s.Unconfirmed {
		say("It was written back after Redis had lost it, and no accounting has confirmed it yet: it may have ended meanwhile.")
	}
	if n := e.NAS; n != nil && n.Clock.Unheeded {
		say("The clock of its BNG is too far off to be heeded: late accounting may be taken for new. Set the clock.")
	}
}

func (e *Explanation) adviseLimits(say func(string, ...any)) {
	for i := range e.Limits {
		switch l := &e.Limits[i]; {
		case l.Reached() && l.Limit == LimitBlockPorts:
			say("It uses all %d ports of its blocks: new sessions fail unless they can share a port. Raise max_blocks or block_size of its group (`sessionctl pool advise`), or find the program that opens them (`sessionctl session list --inside %s`).", l.Most, e.Inside)
		case l.Reached():
			say("It is at the limit %s (%d): new sessions are refused. `sessionctl session list --inside %s` shows what it has open; the limit is in the configuration.", l.Limit, l.Most, e.Inside)
		case !l.RefusedAt.IsZero():
			say("New sessions were refused at %s (%d) within the last day.", l.Limit, l.Most)
		case l.Near():
			say("It is near the limit %s: %d of %d.", l.Limit, l.Used, l.Most)
		}
	}
}
