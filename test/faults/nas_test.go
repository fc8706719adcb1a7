package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// A nas is a BNG with a clock of its own, which is wrong like real ones.
type nas struct {
	name           string
	sources        []string // addresses from which it is heard: of proxies, or its own
	stamps, delays bool     // attributes it sends: Event-Timestamp, Acct-Delay-Time

	ahead time.Duration // its clock minus ours, when it was set
	set   time.Time
	drift float64 // seconds a second
	era   int     // number of times it was set

	// unsettled is the number of rounds for which its clock may be unknown after it was set
	// back. sessiond needs time to tell a set clock from requests that a relay has delayed.
	unsettled int
	far       bool // by more than requests are reordered
	met       bool // sessiond may know that all its sources are one NAS
}

const (
	// settles is the number of rounds, of more than a second each, for which a clock that
	// was set back may stay unknown: sessiond needs readings that agree, ten seconds apart,
	// and some time until Redis has it.
	settles = 14
	// reordered is the most by which events may be reordered.
	reordered = time.Minute

	firstProxy  = "127.0.1.1" // of the rig's own client
	secondProxy = "127.0.2.1" // of no realm
	realmProxy1 = "127.0.4.1"
	realmProxy2 = "127.0.5.1"
)

// clientConfig are the clients besides the rig's own.
var clientConfig = []string{
	"name: bng2, prefix: 127.0.2.0/24, secret: " + rig.Secret,
	"name: core1, realm: core, prefix: 127.0.4.0/24, secret: " + rig.Secret,
	"name: core2, realm: core, prefix: 127.0.5.0/24, secret: " + rig.Secret,
}

// newNASes returns NASes of each kind, with clocks that are hours off, except the first.
func newNASes(rng *rand.Rand) []*nas {
	one, both := []string{firstProxy}, []string{firstProxy, secondProxy}
	all := []*nas{
		{name: "nas-1", sources: one, stamps: true, delays: true},
		{name: "nas-2", sources: []string{realmProxy1, realmProxy2}, stamps: true, delays: true},
		{name: "nas-3", sources: one, stamps: true},
		{name: "nas-4", sources: both, delays: true},
		{name: "nas-5", sources: []string{firstProxy, "127.0.1.2"}, stamps: true, delays: true},
		{name: "nas-6", sources: one},
	}
	for i, n := range all {
		n.set = time.Now()
		if i > 0 {
			n.ahead = time.Duration(rng.IntN(24*3600)-12*3600) * time.Second
			n.drift = (rng.Float64() - 0.5) * 600e-6
		}
	}
	return all
}

// read returns the time of the NAS's clock.
func (n *nas) read(t time.Time) time.Time {
	return t.Add(n.ahead + time.Duration(float64(t.Sub(n.set))*n.drift))
}

// client returns the client, or realm, that reports the NAS's sessions. A NAS that is heard
// through two clients without a realm takes over no address through the second.
func (n *nas) client() string {
	if n.sources[0] == realmProxy1 {
		return "core"
	}
	return "bng1"
}

// first returns the first NAS behind the client of another one, or of all for no name.
func (m *model) first(name string) *nas {
	if name == "" {
		return m.nases[0]
	}
	client := m.nas(name).client()
	i := slices.IndexFunc(m.nases, func(n *nas) bool { return n.client() == client })
	return m.nases[i]
}

// settled reports whether sessiond may know its clock.
func (n *nas) settled() bool { return n.unsettled == 0 }

func (m *model) settledNASes() []*nas {
	return slices.DeleteFunc(slices.Clone(m.nases), func(n *nas) bool { return !n.settled() })
}

// setClocks sets clocks now and then, as by NTP, by hand, or at the change of summer time.
// A clock that a daemon had not completely learned is learned anew after its restart.
func (m *model) setClocks(rng *rand.Rand, restarts bool) []string {
	var done []string
	for _, n := range m.nases[1:] {
		switch {
		case n.unsettled > 0 && restarts:
			n.unsettled = settles
		case n.unsettled > 0:
			n.unsettled--
		}
		steps := []time.Duration{-8 * time.Hour, -time.Hour, -4 * time.Minute, -20 * time.Second, 30 * time.Second, time.Hour, 8 * time.Hour}
		step := steps[rng.IntN(len(steps))]
		if rng.IntN(20) > 0 || !n.stamps || !n.settled() || (n.ahead+step).Abs() > 24*time.Hour {
			continue
		}
		n.ahead += step
		n.era++
		if step < 0 {
			n.unsettled, n.far = settles, -step > reordered
		}
		done = append(done, fmt.Sprintf("clock of %s set by %v", n.name, step))
	}
	return done
}

// nas returns the NAS of that name.
func (m *model) nas(name string) *nas {
	i := slices.IndexFunc(m.nases, func(n *nas) bool { return n.name == name })
	if i < 0 {
		return &nas{name: name, sources: []string{firstProxy}, stamps: true, delays: true, set: time.Now()}
	}
	return m.nases[i]
}

// hearNASes has each NAS send a report about no line, at once, so that its clock can be
// learned.
func (w *world) hearNASes(ctx context.Context) error {
	for _, n := range w.model.nases {
		for _, source := range n.sources {
			r := acctclient.Request{
				Status: rfc2866.AcctStatusType_Value_InterimUpdate, SessionID: "beacon", NASIdentifier: n.name, SendDelay: n.delays,
			}
			if n.stamps {
				r.EventTime = n.read(time.Now())
			}
			if err := rig.SendTo(ctx, w.Daemon.RADIUS, source+":0", r); err != nil {
				return fmt.Errorf("%s heard from %s: %w", n.name, source, err)
			}
		}
	}
	return nil
}

// meet has one session of each NAS heard through all its clients, and waits until Redis has
// stored that they report one NAS. Before that, the second client's reports are of another
// NAS.
func (w *world) meet(ctx context.Context) error {
	for _, n := range w.model.nases {
		n.met = !slices.Contains(n.sources, secondProxy)
		i := slices.IndexFunc(w.model.lines, func(l *line) bool { return l.online != nil && l.online.nas == n.name })
		if n.met || i < 0 {
			continue
		}
		l := w.model.lines[i]
		for _, source := range n.sources {
			t := telling{nas: n, source: source, at: time.Now(), request: l.online.report(l, rfc2866.AcctStatusType_Value_InterimUpdate, time.Now())}
			if err := rig.SendTo(ctx, w.Daemon.RADIUS, source+":0", t.now()); err != nil {
				return err
			}
		}
		err := w.Until(ctx, "the clients of "+n.name+" to be known as one's", func() (bool, error) {
			text, err := w.db.HGet(ctx, "sessiond:nas", "bng2/"+n.name).Result()
			if errors.Is(err, redis.Nil) {
				err = nil
			}
			return strings.Contains(text, "same_as=bng1/"), err
		})
		if err != nil {
			return err
		}
		n.met, w.told = true, time.Now()
	}
	return nil
}

// forgetMeetings has each NAS be heard through its first client alone, until the next meet.
func (m *model) forgetMeetings() {
	for _, n := range m.nases {
		n.met = false
	}
}

// A telling is one request of a NAS, sent until it is answered.
type telling struct {
	nas     *nas
	source  string
	request acctclient.Request
	at      time.Time // of the event
	stamp   time.Time // the Event-Timestamp, if it is not the clock's time of at
	era     int       // of the NAS's clock that stamped it
	relayed bool      // a relay on the way counts Acct-Delay-Time
}

// now returns the request as sent now.
func (t *telling) now() acctclient.Request {
	r := t.request
	if t.nas.stamps {
		r.EventTime = t.stamp
		if t.stamp.IsZero() {
			r.EventTime = t.nas.read(t.at)
		}
	}
	if t.nas.delays || t.relayed {
		r.SendDelay, r.DelayTime = true, time.Since(t.at)
	}
	return r
}

// report returns a request of the session on a line.
func (s *session) report(l *line, status rfc2866.AcctStatusType, at time.Time) acctclient.Request {
	r := acctclient.Request{
		Status: status, SessionID: s.id, UserName: s.user, NASIdentifier: s.nas, FramedAddress: l.inside,
	}
	if status != rfc2866.AcctStatusType_Value_Start && !s.start.IsZero() {
		r.SessionTime = max(0, at.Sub(s.start))
	}
	return r
}

// older is the age of events that are to be older than another one. The clock of a NAS that
// sends no delays is known to about a second.
const older = 10 * time.Second

const (
	acctStart   = rfc2866.AcctStatusType_Value_Start
	acctInterim = rfc2866.AcctStatusType_Value_InterimUpdate
	acctStop    = rfc2866.AcctStatusType_Value_Stop
)

// tellings returns the requests of an operation, in order.
func (w *world) tellings(o op) []telling {
	if o.kind == opRestart {
		return []telling{w.restart(o)}
	}
	s, now := o.session, w.now
	n := w.model.nas(s.nas)
	tell := func(status rfc2866.AcctStatusType, at time.Time) telling {
		return telling{nas: n, source: n.source(o.source), at: at, request: s.report(o.line, status, at)}
	}
	late := func(status rfc2866.AcctStatusType, at time.Time) telling {
		t := tell(status, at)
		t.relayed = o.relayed || !n.stamps || !n.settled() || s.era != n.era
		return t
	}
	switch o.kind {
	case opOldStart:
		s.era = n.era
		old := late(acctStart, o.line.online.start.Add(-older))
		old.relayed = old.relayed || o.line.online.nas == s.nas // else its clock may have been set back
		return []telling{old}
	case opReordered:
		return []telling{tell(acctStop, now), tell(acctStart, now.Add(-older))}
	case opLateInt:
		return []telling{late(acctInterim, s.heard)}
	case opLateStart:
		return s.again(o.source, o.relayed)
	case opAgain:
		again := s.again(o.source, false)
		return append(again, again...)
	case opService:
		return serviceOf(s, tell)
	case opForeign:
		s.start = now.Add(-time.Hour)
		return []telling{tell(acctInterim, now), tell(acctStart, now), tell(acctStop, now)}
	case opStop, opLateStop:
		return []telling{tell(acctStop, now)}
	}
	s.heard, s.era = now, n.era
	switch o.kind {
	case opInterim, opLostStart, opRevive, opMove:
		return []telling{tell(acctInterim, now)}
	case opTwice:
		t := tell(acctInterim, now)
		t.relayed = o.relayed
		return []telling{t, t}
	}
	t := tell(acctStart, now)
	if o.kind == opClock {
		t.stamp = time.Unix(3600, 0)
		if o.future {
			t.stamp = time.Date(2036, 2, 7, 0, 0, 0, 0, time.UTC)
		}
	}
	if n.stamps && t.stamp.IsZero() {
		t.stamp = n.read(now)
	}
	t.era = n.era
	s.begun = &t
	return []telling{t}
}

// source returns an address from which the NAS is heard.
func (n *nas) source(drawn int) string {
	if !n.met {
		return n.sources[0]
	}
	return n.sources[drawn%len(n.sources)]
}

// again returns the session's Start, sent again: unchanged, or with its delay counted up.
// It returns none if the Start was lost, or if another session's Start could look the same.
func (s *session) again(source int, relayed bool) []telling {
	if s.begun == nil {
		return nil
	}
	t := *s.begun
	t.relayed = relayed || t.nas.stamps && (t.era != t.nas.era || !t.nas.settled())
	if !t.nas.stamps && !t.nas.delays && !t.relayed && time.Since(t.at) > 4*time.Minute {
		return nil
	}
	t.source = t.nas.source(source)
	return []telling{t}
}

// serviceOf returns the accounting of a service within the session, with its address and an
// identifier of its own.
func serviceOf(s *session, tell func(rfc2866.AcctStatusType, time.Time) telling) []telling {
	var all []telling
	for _, status := range []rfc2866.AcctStatusType{acctStart, acctInterim, acctStop} {
		t := tell(status, time.Now())
		t.request.SessionID, t.request.MultiSessionID, t.request.SessionTime = s.id+"-service", s.id, 0
		all = append(all, t)
	}
	return all
}

// restart returns an Accounting-On, by a clock that is not set yet.
func (w *world) restart(o op) telling {
	n := w.model.nas(o.nas)
	t := telling{nas: n, source: n.source(o.source), at: w.now, request: acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_AccountingOn, NASIdentifier: n.name,
		SessionID: "restart-" + w.now.Format(time.RFC3339Nano), // else its packet would equal the one before
	}}
	if n.stamps {
		t.stamp = n.read(w.now).Add(o.boot)
	}
	return t
}
