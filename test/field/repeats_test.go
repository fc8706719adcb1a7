package field

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// binding returns the binding of an online session, the only one of its address: a session
// that ended and began again would leave another one in hold.
func (w *world) binding(s session) rig.Binding {
	w.t.Helper()
	var found rig.Binding
	w.must(w.Until(w.ctx, "one binding of "+s.inside.String(), func() (bool, error) {
		all, err := w.Bindings(w.ctx, s.inside)
		if len(all) != 1 || err != nil {
			return false, err
		}
		found = all[0]
		return found.State == "ACTIVE" && found.UserName == s.user, nil
	}))
	return found
}

// since returns the time at which the binding of an address began.
func (w *world) since(s session) string {
	w.t.Helper()
	var b struct {
		Since string `json:"allocated_at"`
	}
	w.must(json.Unmarshal([]byte(strings.TrimSpace(w.ctl("-o", "json", "binding", "list", "--inside", s.inside.String()))), &b))
	return b.Since
}

// bindingKept returns two functions: noted records a session's binding, and kept checks
// that it is still the same, since the same time.
func bindingKept(s session) (noted, kept func(*world)) {
	var before rig.Binding
	var since string
	noted = func(w *world) { before, since = w.binding(s), w.since(s) }
	kept = func(w *world) {
		w.t.Helper()
		if now, at := w.binding(s), w.since(s); now != before || at != since {
			w.t.Errorf("%v has %+v since %s, had %+v since %s", s, now, at, before, since)
		}
	}
	return noted, kept
}

// TestStartSentAgain_SES02_ACCT15: a Start that is sent again after the reply cache has
// expired is of the same session and changes nothing. It may be unchanged or have its delay
// counted up, and go to another address of the server or to another daemon. After the Stop
// it begins nothing.
func TestStartSentAgain_SES02_ACCT15(t *testing.T) {
	w := start(t)
	p := play{w: w}
	for _, counted := range []bool{false, true} {
		kind := fmt.Sprintf("delay counted up: %t", counted)
		p.eachClock(kind, func(x *scene, nas bng) []step {
			u := x.session("u", "s", 1)
			first, stop := nas.start(u), nas.stop(u)
			if counted {
				first, stop = first.counting(), stop.counting()
			}
			noted, kept := bindingKept(u)
			return []step{
				sent("Start", first, "opened", u),
				done("it has its block", noted, u),
				sent("again at once", first, "refreshed", u),
				sent("again later", first, "refreshed", u).after(3 * time.Second),
				sent("again to another address", first, "refreshed", u).elsewhere(),
				sent("again to another daemon", first, "refreshed", u).restarted(),
				sent("again to its other address", first, "refreshed", u).elsewhere(),
				sent("Interim", nas.interim(u), "refreshed", u).after(time.Second),
				sent("again after the Interim", first, "refreshed", u),
				done("it has the same block", kept, u),
				sent("Stop", stop, "stopped").after(2 * time.Second),
				sent("Stop again", stop, "ended"),
				sent("Start again after the Stop", first, "ended"),
				sent("Start again after the Stop to another daemon", first, "ended").restarted(),
				sent("Stop again", stop, "ended").after(time.Second),
			}
		})
	}
	p.run()
}

// longAgo makes Redis's data about ended sessions and restarts older by a duration.
func longAgo(by time.Duration) func(*world) {
	return func(w *world) {
		w.t.Helper()
		for _, pattern := range []string{"sessiond:{default}:sess:*", "sessiond:{default}:nas:*"} {
			for key := range strings.FieldsSeq(w.redis("KEYS", pattern)) {
				line := w.redis("GET", key)
				if strings.HasPrefix(line, "open ") {
					continue
				}
				shifted := redisTime.ReplaceAllStringFunc(line, func(text string) string {
					at, err := time.Parse(time.RFC3339Nano, text)
					w.must(err)
					return at.Add(-by).Format(time.RFC3339Nano)
				})
				w.redis("SET", key, shifted, "KEEPTTL")
			}
		}
	}
}

var redisTime = regexp.MustCompile(`20[0-9][0-9]-[0-9-]+T[0-9:.]+Z`)

// TestReplayed_SES10_SES15: packets of a NAS without Event-Timestamp come again hours
// later, octet for octet, from an attacker or a stuck proxy. They end no session and begin
// none.
func TestReplayed_SES10_SES15(t *testing.T) {
	w := start(t)
	p := play{w: w}
	for _, delays := range []bool{false, true} {
		p.scene(fmt.Sprintf("of a session, with a delay: %t", delays), func(x *scene) []step {
			nas := x.bng("old")
			nas.stamps, nas.delays = false, delays
			u, v, lost := x.session("u", "s", 1), x.session("v", "t", 1), x.session("l", "r", 2)
			came := x.session("c", "q", 2)
			first, interim, stop := nas.start(u), nas.interim(u).lasting(30*time.Minute), nas.stop(u).lasting(31*time.Minute)
			evicted := nas.start(lost)
			return []step{
				sent("Start", first, "opened", u),
				sent("Start of one whose Stop is lost", evicted, "opened", u, lost),
				sent("Interim", interim, "refreshed", u, lost).after(time.Second),
				sent("Stop", stop, "stopped", lost),
				sent("Start of the next", nas.start(v), "opened", v, lost).after(newer),
				sent("Start of the other's next", nas.start(came), "took_over", v, came),
				done("hours pass", longAgo(3*time.Hour), v, came),
				sent("Start again", first, "ended", v, came).restarted(),
				sent("Interim again", interim, "ended|held", v, came),
				sent("Stop again", stop, "ended", v, came),
				sent("Start again of who was put out", evicted, "ended|held", v, came),
				sent("Stop of the next", nas.stop(v), "stopped", came),
				sent("Start again, when the address is free", first, "ended", came),
				sent("Interim of the other's next", nas.interim(came), "refreshed", came).after(time.Second),
			}
		})
		p.scene(fmt.Sprintf("of a restart, with a delay: %t", delays), func(x *scene) []step {
			nas := x.bng("old")
			nas.stamps, nas.delays = false, delays
			u, v, after := x.session("u", "s", 1), x.session("v", "t", 2), x.session("w", "q", 3)
			on, off := nas.on(), nas.off()
			return []step{
				sent("Start", nas.start(u), "opened", u),
				sent("Off", off, "restarted").after(3 * time.Second),
				sent("On", on, "restarted").after(3 * time.Second),
				sent("Start of the next", nas.start(v), "opened", v).after(newer),
				done("hours pass", longAgo(3*time.Hour), v),
				sent("On again", on, "restart_repeated", v).restarted(),
				sent("Off again", off, "restart_repeated", v),
				sent("Start of another", nas.start(after), "opened", v, after),
				sent("On again", on, "restart_repeated", v, after).after(3 * time.Second),
			}
		})
	}
	for _, old := range []time.Duration{30 * time.Hour, 47 * time.Hour, 72 * time.Hour, 10 * 24 * time.Hour} {
		p.scene(fmt.Sprintf("of %v ago by a clock that is known", old), func(x *scene) []step {
			nas := x.bng("right")
			nas.delays = false
			u, ghost, again := x.session("u", "s", 1), x.session("g", "o", 2), x.session("h", "n", 1)
			return []step{
				sent("Start", nas.start(u), "opened", u),
				sent("Start of long ago", nas.start(ghost).late(old), "outdated", u),
				sent("Interim of long ago", nas.interim(ghost).late(old), "outdated", u),
				sent("Start of long ago where somebody is", nas.start(again).late(old), "outdated", u),
				sent("Interim", nas.interim(u), "refreshed", u).after(time.Second),
			}
		})
	}
	p.run()
}

// TestStartAfterItsInterim_SES02_SES03: a Start that arrives after an Interim of its
// session, because its first transmission was lost, is of the same session.
func TestStartAfterItsInterim_SES02_SES03(t *testing.T) {
	w := start(t)
	p := play{w: w}
	p.eachClock("Start late", func(x *scene, nas bng) []step {
		u := x.session("u", "s", 1)
		first := nas.start(u).late(2 * time.Minute).counting()
		noted, kept := bindingKept(u)
		return []step{
			done("the Start was sent and lost", func(*world) { first.now() }),
			sent("Interim", nas.interim(u), "opened", u),
			done("it has its block", noted, u),
			sent("the lost Start again", first, "refreshed", u).after(time.Second),
			done("it has the same block", kept, u),
			sent("Interim", nas.interim(u), "refreshed", u),
		}
	})
	p.run()
}

// TestStartSentAgainAfterMove_SES09_SES02: a Start that is sent again once its session has
// another address names the old address, which stays free, or its next user's.
func TestStartSentAgainAfterMove_SES09_SES02(t *testing.T) {
	w := start(t)
	p := play{w: w}
	for _, counted := range []bool{false, true} {
		p.eachClock(fmt.Sprintf("delay counted up: %t", counted), func(x *scene, nas bng) []step {
			u, v := x.session("u", "s", 1), x.session("v", "t", 1)
			there := u
			there.inside = x.addr(2)
			first := nas.start(u)
			if counted {
				first = first.counting()
			}
			return []step{
				sent("Start", first, "opened", u),
				sent("Interim with another address", nas.interim(there), "moved", there).after(3 * time.Second),
				sent("Start again", first, "stale", there),
				sent("Interim", nas.interim(there), "refreshed", there).after(time.Second),
				sent("Start of the next at the address of before", nas.start(v), "opened", there, v),
				sent("Start again", first, "stale", there, v),
				sent("Stop", nas.stop(there), "stopped", v).after(time.Second),
				sent("Start again", first, "ended", v),
			}
		})
	}
	p.run()
}

// TestInterimSentAgain_ACCT15: an Interim or Stop that is sent again and again changes
// nothing, whichever session began meanwhile.
func TestInterimSentAgain_ACCT15(t *testing.T) {
	w := start(t)
	p := play{w: w}
	for _, counted := range []bool{false, true} {
		p.eachClock(fmt.Sprintf("delay counted up: %t", counted), func(x *scene, nas bng) []step {
			u, v := x.session("u", "s", 1), x.session("v", "t", 1)
			interim, stop := nas.interim(u), nas.stop(u)
			if counted {
				interim, stop = interim.counting(), stop.counting()
			}
			noted, kept := bindingKept(u)
			return []step{
				sent("Start", nas.start(u), "opened", u),
				done("it has its block", noted, u),
				sent("Interim", interim, "refreshed", u).after(2 * time.Second),
				sent("Interim again", interim, "refreshed", u).after(time.Second),
				done("it has the same block", kept, u),
				sent("Stop", stop, "stopped"),
				sent("Start of the next", nas.start(v), "opened", v).after(2 * time.Second),
				sent("Interim again", interim, "ended", v),
				sent("Stop again", stop, "ended", v),
				sent("Interim again to another daemon", interim, "ended", v).restarted(),
				sent("Stop again", stop, "ended", v),
				sent("Stop of the next", nas.stop(v), "stopped").after(time.Second),
			}
		})
	}
	p.run()
}

// TestSameIdentifierOfSeveral_SES12: pppd's radius plugin gives all sessions that begin in
// one second the same Acct-Session-Id. Those of other users at other addresses are other
// sessions.
func TestSameIdentifierOfSeveral_SES12(t *testing.T) {
	w := start(t)
	p := play{w: w}
	const id = "65A1B2C3014500"
	p.eachClock("three of one second", func(x *scene, nas bng) []step {
		all := []session{x.session("u1", id, 1), x.session("u2", id, 2), x.session("u3", id, 3)}
		first := []*packet{nas.start(all[0]).counting(), nas.start(all[1]).counting(), nas.start(all[2]).counting()}
		noted, kept := bindingKept(all[1])
		steps := []step{
			sent("Start of u1", first[0], "opened", all[0]),
			sent("Start of u2", first[1], "opened", all[:2]...),
			sent("Start of u3", first[2], "opened", all...),
			done("u2 has its block", noted, all...),
		}
		for round := range 2 {
			for i := range all {
				s := sent(fmt.Sprintf("Interim of u%d", i+1), nas.interim(all[i]), "refreshed", all...)
				if i == 0 {
					s = s.after(2 * time.Second)
				}
				if round == 1 && i == 0 {
					s = s.restarted()
				}
				steps = append(steps, s)
			}
		}
		for i := range all {
			steps = append(steps, sent(fmt.Sprintf("Start of u%d again", i+1), first[i], "refreshed", all...))
		}
		steps = append(steps, done("u2 has the same block", kept, all...))
		late := nas.interim(all[0]).counting()
		online := slices.Clone(all)
		for _, i := range []int{0, 2, 1} { // the first, and the last but one
			online = slices.DeleteFunc(online, func(s session) bool { return s == all[i] })
			left := slices.Clone(online)
			stop := nas.stop(all[i]).counting()
			again := sent("late Start of it", first[i], "ended", left...)
			if i == 2 {
				again = again.restarted()
			}
			steps = append(steps,
				sent(fmt.Sprintf("Stop of u%d", i+1), stop, "stopped", left...).after(time.Second), again,
				sent("its Stop again", stop, "ended", left...))
			if i == 0 {
				steps = append(steps, sent("a late Interim of u1", late, "ended", left...))
			}
			for _, s := range left {
				steps = append(steps, sent("Interim of "+s.user, nas.interim(s), "refreshed", left...))
			}
		}
		return append(steps, sent("the last Interim of u1 again", late, "ended"))
	})
	p.eachClock("the address of one goes to another", func(x *scene, nas bng) []step {
		u1, u2, u3 := x.session("u1", id, 1), x.session("u2", id, 2), x.session("u3", "next", 2)
		stop := nas.stop(u2)
		return []step{
			sent("Start of u1", nas.start(u1), "opened", u1),
			sent("Start of u2", nas.start(u2), "opened", u1, u2),
			sent("Start of u3, the Stop of u2 was lost", nas.start(u3), "took_over", u1, u3).after(2 * time.Second),
			sent("Interim of u1", nas.interim(u1), "refreshed", u1, u3),
			sent("Stop of u2, late", stop, "ended", u1, u3),
			sent("Interim of u3", nas.interim(u3), "refreshed", u1, u3).after(time.Second),
			sent("Stop of u1", nas.stop(u1), "stopped", u3),
		}
	})
	p.run()
}
