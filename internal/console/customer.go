package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/measure"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// customerBody is all that is known of one inside address.
type customerBody struct {
	Inside   netip.Addr
	Online   *inspect.Subscriber // nil while nobody is online there
	Bindings []inspect.Binding   // held ones included
	Removals []inspect.Removal
	Timeline []timelineEntry
	Sessions []inspect.Session
	More     bool // there are more sessions than are listed
	MayEnd   bool // the visitor may end the subscriber and its sessions
}

// timelineEntry is something that happened at a time, or will.
type timelineEntry struct {
	At     time.Time
	Text   string
	Future bool
}

// sessionsOnPage is the most sessions that a page lists.
const sessionsOnPage = 200

// customerPage shows one inside address.
func (c *Console) customerPage(r *http.Request) (shownPage, error) {
	inside, err := addressIn(r.PathValue("address"))
	if err != nil {
		return shownPage{}, err
	}
	v := visitorOf(r)
	b := customerBody{Inside: inside, MayEnd: v.session != nil && v.may(pb.SubscriberService_DeleteSubscribers_FullMethodName)}
	for _, read := range []func(context.Context, *customerBody) error{c.readOnline, c.readBindings, c.readRemovals, c.readSessions} {
		if err := read(r.Context(), &b); err != nil {
			return shownPage{}, err
		}
	}
	b.Timeline = timelineOf(&b, c.Now())
	return shownPage{template: "customer.html", Title: "Subscriber " + inside.String(), Section: "subscribers", Query: inside.String(), Body: b}, nil
}

// alone returns the prefix of one address.
func alone(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (c *Console) readOnline(ctx context.Context, b *customerBody) error {
	s, err := c.Subscribers.Subscriber(ctx, subscriber.Key{Inside: b.Inside})
	switch {
	case err == nil:
		b.Online = &s
	case errors.Is(err, inspect.ErrNotFound):
		return nil // offline, but it may have bindings in their hold
	}
	return err
}

func (c *Console) readBindings(ctx context.Context, b *customerBody) (err error) {
	b.Bindings, _, err = c.Nat.Bindings(ctx, inspect.BindingFilter{Inside: alone(b.Inside)}, inspect.BindingKey{}, rowsOnPage)
	return err
}

func (c *Console) readRemovals(ctx context.Context, b *customerBody) (err error) {
	b.Removals, _, err = c.Removals.Removals(ctx, inspect.RemovalFilter{Inside: alone(b.Inside)}, inspect.RemovalKey{}, rowsOnPage)
	return err
}

// errEnough ends a list of sessions.
var errEnough = errors.New("enough sessions")

func (c *Console) readSessions(ctx context.Context, b *customerBody) error {
	err := c.Sessions.Sessions(ctx, inspect.SessionFilter{Inside: alone(b.Inside)}, func(s inspect.Session) error {
		if len(b.Sessions) == sessionsOnPage {
			b.More = true
			return errEnough
		}
		b.Sessions = append(b.Sessions, s)
		return nil
	})
	slices.SortFunc(b.Sessions, func(x, y inspect.Session) int {
		return cmp.Or(cmp.Compare(x.Protocol, y.Protocol), x.Inside.Compare(y.Inside), x.Remote.Compare(y.Remote))
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// timelineOf returns the known times of an address, in order.
func timelineOf(b *customerBody, now time.Time) []timelineEntry {
	var entries []timelineEntry
	add := func(at time.Time, format string, args ...any) {
		if !at.IsZero() {
			entries = append(entries, timelineEntry{At: at, Text: fmt.Sprintf(format, args...), Future: at.After(now)})
		}
	}
	if s := b.Online; s != nil {
		add(s.StartedAt, "The session began")
		add(s.UpdatedAt, "The BNG reported it last")
		add(s.ExpiresAt, "The record expires, unless the BNG reports the session before")
	}
	for i := range b.Bindings {
		bindingTimes(&b.Bindings[i], add)
	}
	for i := range b.Removals {
		r := &b.Removals[i]
		add(r.Since, "%s, for %s", removalTexts[r.Kind], r.Reason)
		add(r.DueAt, "The sessions are removed, unless the subscriber comes back before")
	}
	slices.SortStableFunc(entries, func(x, y timelineEntry) int { return x.At.Compare(y.At) })
	return entries
}

// removalTexts say what became of a removal.
var removalTexts = map[inspect.RemovalKind]string{
	inspect.RemovalHeld:     "A guard suspended the removal until a person decides",
	inspect.RemovalGrace:    "The record ended, and the sessions wait for the subscriber to come back",
	inspect.RemovalObserved: "The record ended, and the removal was only observed",
}

// bindingTimes adds the times in the life of a binding.
func bindingTimes(b *inspect.Binding, add func(at time.Time, format string, args ...any)) {
	add(b.AllocatedAt, "Ports %s of %s were allocated", nat.Blocks{Block: b.Block}.Ports(), b.Outside)
	if b.Blocks.Len() > 1 {
		add(b.GrownAt, "It got the newest of its %d blocks", b.Blocks.Len())
	}
	add(b.ReleasedAt, "The record of the session at %s ended", b.Outside)
	add(b.GraceUntil, "The grace time ends")
	if r := b.Receipt; r != nil {
		add(r.CutAt, "Cut: the gate was closed, and no packet passed from then on")
		add(r.ReapedAt, "Reaped: %s sessions were deleted, and %s proved that none was left", measure.Count(r.Deleted), absenceTexts[r.Proof])
	}
	add(b.HoldUntil, "The quarantine of ports %s ends", b.Ports())
}

var absenceTexts = map[nat.Proof]string{
	nat.NotProved:  "nothing yet",
	nat.ProofIndex: "the index",
	nat.ProofTable: "a walk through the table",
}

const icmp = 1 // IANA

// protocolName writes a protocol's number as people know it.
func protocolName(number uint8) string {
	switch number {
	case icmp:
		return "ICMP"
	case nat.ProtocolTCP:
		return "TCP"
	case nat.ProtocolUDP:
		return "UDP"
	}
	return strconv.Itoa(int(number))
}

// sideName says who began a session.
func sideName(d nat.Direction) string {
	if d == nat.Outbound {
		return "inside"
	}
	return "outside"
}
