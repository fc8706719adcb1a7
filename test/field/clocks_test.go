package field

import (
	"fmt"
	"testing"
	"time"
)

// clocks are clocks like those of real NASes.
func clocks() map[string]time.Duration {
	return map[string]time.Duration{
		"right":          0,
		"8 h behind":     -8 * time.Hour, // local time sent as UTC
		"3 h ahead":      3 * time.Hour,
		"30 s ahead":     30 * time.Second,
		"at 1970":        ahead1970(), // no battery
		"at 2036":        ahead2036(),
		"3 days too old": -72 * time.Hour,
	}
}

// told are the attributes by which a NAS reports the time.
var told = []struct {
	how            string
	stamps, delays bool
}{
	{"Event-Timestamp and Acct-Delay-Time", true, true},
	{"Event-Timestamp alone", true, false},
	{"Acct-Delay-Time alone", false, true},
	{"no time at all", false, false},
}

// eachClock makes a scene of every clock and every way to report it.
func (p *play) eachClock(kind string, script func(x *scene, nas bng) []step) {
	for clock, ahead := range clocks() {
		for _, t := range told {
			if !t.stamps && ahead != 0 {
				continue // without Event-Timestamp the clock does not matter
			}
			p.scene(fmt.Sprintf("%s, clock %s, %s", kind, clock, t.how), func(x *scene) []step {
				nas := x.bng("nas")
				nas.ahead, nas.stamps, nas.delays = ahead, t.stamps, t.delays
				return script(x, nas)
			})
		}
	}
}

// twoClocks makes a scene of a right clock and of a wrong one, for results that do not
// depend on it.
func (p *play) twoClocks(kind string, script func(x *scene, nas bng) []step) {
	for _, ahead := range []time.Duration{0, -8 * time.Hour} {
		p.scene(fmt.Sprintf("%s, clock %v ahead", kind, ahead), func(x *scene) []step {
			return script(x, x.bng("nas").clock(ahead))
		})
	}
}

// TestDeletedRecordComesBack_SES18_I4: a subscriber whose record was deleted by hand or
// expired is back with the next Interim, whatever the clock of its NAS. An Interim that is
// older than the deletion does not bring it back, if that can be known.
func TestDeletedRecordComesBack_SES18_I4(t *testing.T) {
	deletions := map[string]func(session) func(*world){
		"DEL": func(s session) func(*world) {
			return func(w *world) { w.redis("DEL", recordKey(s.inside)) }
		},
		"sessionctl by address": func(s session) func(*world) {
			return func(w *world) { w.ctl("subscriber", "delete", s.inside.String(), "--yes") }
		},
		"sessionctl by user": func(s session) func(*world) {
			return func(w *world) { w.ctl("subscriber", "delete", "--user", s.user, "--yes") }
		},
		"expiry": nil, // of the client's record_ttl
	}
	w := start(t)
	p := play{w: w}
	for _, how := range []string{"DEL", "sessionctl by address", "sessionctl by user", "expiry"} { // what expires is sent last
		delete := deletions[how]
		p.eachClock(how, func(x *scene, nas bng) []step {
			u := x.session("u", "s", 1)
			lost, stays := nas.interim(u), []session{u}
			deed := done("waits", func(*world) {})
			if delete == nil {
				nas, stays = nas.via(viaBrief), nil
				lost.bng = nas
			} else {
				deed = done("deleted", delete(u))
			}
			steps := []step{
				sent("Start", nas.start(u), "opened", u),
				done("an Interim is sent and lost", func(*world) { lost.now() }, stays...),
				deed.after(4500 * time.Millisecond),
			}
			known := nas.stamps && nas.ahead.Abs() < 48*time.Hour
			if delete != nil && (nas.delays || known) { // before, an expired record was not known to be gone
				steps = append(steps, sent("the lost Interim again", lost.counting(), "ended").after(2500*time.Millisecond))
			} else {
				steps = append(steps, done("waits", func(*world) {}).after(2500*time.Millisecond))
			}
			back := sent("the next Interim", nas.interim(u), "opened", u)
			if delete == nil {
				return append(steps, back)
			}
			return append(steps, back,
				sent("one more", nas.interim(u), "refreshed", u),
				sent("Stop", nas.stop(u), "stopped"))
		})
	}
	p.run()
}

// TestNewcomerGetsTheAddress_SES07_SES06: a new session at an address whose last Stop was
// lost gets the address, whatever the clocks of the two NASes; no event of the old session
// undoes that.
func TestNewcomerGetsTheAddress_SES07_SES06(t *testing.T) {
	w := start(t)
	p := play{w: w}
	for _, way := range []struct {
		how   string
		wrong func(first, second *bng) *bng
	}{
		{"from a wrong clock to a right one", func(first, _ *bng) *bng { return first }},
		{"from a right clock to a wrong one", func(_, second *bng) *bng { return second }},
	} {
		for _, via := range [][2]string{{viaBNG1, viaBNG1}, {viaCore1, viaCore2}} {
			for _, met := range []bool{false, true} {
				kind := fmt.Sprintf("%s, through %s, its clock met before: %t", way.how, via[1], met)
				p.eachClock(kind, func(x *scene, nas bng) []step {
					first, second := x.bng("good").via(via[0]), x.bng("other").via(via[1])
					wrong := way.wrong(&first, &second)
					wrong.ahead, wrong.stamps, wrong.delays = nas.ahead, nas.stamps, nas.delays
					u1, u2, before := x.session("u1", "g", 1), x.session("u2", "t", 1), x.session("u0", "b", 9)
					var others []session
					var steps []step
					if met {
						others = []session{before}
						steps = append(steps, sent("a Start before", second.start(before), "opened", before))
					}
					return append(steps,
						sent("Start of u1", first.start(u1), "opened", append(others, u1)...),
						sent("Start of u2", second.start(u2), "took_over", append(others, u2)...),
						sent("Interim of u2", second.interim(u2), "refreshed", append(others, u2)...).after(1200*time.Millisecond),
						sent("late Stop of u1", first.stop(u1), "ended", append(others, u2)...),
						sent("Stop of u2", second.stop(u2), "stopped", others...),
					)
				})
			}
		}
	}
	p.eachClock("the newcomer's Start was lost too", func(x *scene, nas bng) []step {
		first := x.bng("good")
		u1, u2 := x.session("u1", "g", 1), x.session("u2", "t", 1)
		return []step{
			sent("Start of u1", first.start(u1), "opened", u1),
			sent("Interim of u2", nas.interim(u2).lasting(2*time.Second), "took_over", u2).after(4 * time.Second),
			sent("late Interim of u1", first.interim(u1).late(3*time.Second), "ended", u2),
			sent("Interim of u2", nas.interim(u2).lasting(3*time.Second), "refreshed", u2),
		}
	})
	p.run()
}

// TestBootsWithAWrongClock_SES15: a subscriber who logs in after an Accounting-On gets
// service, whatever the clock in the On was before NTP set it; also under an
// Acct-Session-Id that was used before the boot.
func TestBootsWithAWrongClock_SES15(t *testing.T) {
	w := start(t)
	p := play{w: w}
	offsets := map[string]time.Duration{
		"right": 0, "30 s ahead": 30 * time.Second, "3 min ahead": 3 * time.Minute, "8 h ahead": 8 * time.Hour,
		"8 h behind": -8 * time.Hour, "at 1970": ahead1970(),
	}
	for clock, ahead := range offsets {
		for _, t := range told {
			if !t.stamps && ahead != 0 {
				continue
			}
			kind := fmt.Sprintf("boots with a clock %s, %s", clock, t.how)
			nasOf := func(x *scene) bng {
				nas := x.bng("boot")
				nas.stamps, nas.delays = t.stamps, t.delays
				return nas
			}
			p.scene(kind, func(x *scene) []step {
				nas, b := nasOf(x), x.session("b", "b", 1)
				return []step{
					sent("On", nas.clock(ahead).on(), "restarted"),
					sent("Start after NTP", nas.start(b), "opened", b),
					sent("Interim", nas.interim(b), "refreshed", b).after(1200 * time.Millisecond),
					sent("another Interim", nas.interim(b), "refreshed", b).after(2 * time.Second),
					sent("Stop", nas.stop(b), "stopped"),
				}
			})
			p.scene(kind+", NTP comes after the Start", func(x *scene) []step {
				nas, b := nasOf(x), x.session("b", "b", 1)
				return []step{
					sent("On", nas.clock(ahead).on(), "restarted"),
					sent("Start", nas.clock(ahead).start(b), "opened", b),
					sent("Interim after NTP", nas.interim(b), "refreshed", b).after(1200 * time.Millisecond),
					sent("another Interim", nas.interim(b), "refreshed", b).after(2 * time.Second),
					sent("Stop", nas.stop(b), "stopped"),
				}
			})
			p.scene(kind+", the identifier was used before", func(x *scene) []step {
				nas, b := nasOf(x), x.session("b", "00000001", 1)
				return []step{
					sent("Start before", nas.start(b), "opened", b),
					sent("On", nas.clock(ahead).on(), "restarted").after(3 * time.Second),
					sent("Start after NTP", nas.start(b), "opened|took_over", b),
					sent("Interim", nas.interim(b), "refreshed", b).after(1200 * time.Millisecond),
					sent("Stop", nas.stop(b), "stopped").after(time.Second),
				}
			})
			p.scene(kind+", another user has the identifier and the address", func(x *scene) []step {
				nas, b, c := nasOf(x), x.session("b", "00000001", 1), x.session("c", "00000001", 1)
				return []step{
					sent("Start before", nas.start(b), "opened", b),
					sent("On", nas.clock(ahead).on(), "restarted").after(3 * time.Second),
					sent("Start after NTP", nas.start(c), "opened|took_over", c),
					sent("Interim", nas.interim(c), "refreshed", c).after(1200 * time.Millisecond),
					sent("Stop", nas.stop(c), "stopped").after(time.Second),
				}
			})
			p.scene(kind+", On and Start in one moment", func(x *scene) []step {
				nas, b, c := nasOf(x), x.session("b", "00000001", 1), x.session("c", "00000002", 2)
				on := done("On", func(w *world) {
					w.must(w.SendFrom(w.ctx, nas.source, nas.clock(ahead).on().now()))
					w.must(w.SendFrom(w.ctx, nas.source, nas.start(b).now()))
				}, b)
				return []step{
					sent("Start before", nas.start(b), "opened", b),
					sent("another Start before", nas.start(c), "opened", b, c),
					on.after(3 * time.Second),
					sent("Interim", nas.interim(b), "refreshed", b).after(1200 * time.Millisecond),
				}
			})
		}
	}
	p.run()
}

// TestClockIsSetBack_SES06_SES07: a clock that is set back during a session, by NTP or at
// the end of summer time, changes nothing for events in order.
func TestClockIsSetBack_SES06_SES07(t *testing.T) {
	w := start(t)
	p := play{w: w}
	steps := map[string][2]time.Duration{ // error of the clock, before and after
		"by 4 min":              {4 * time.Minute, 0},
		"by 1 h":                {time.Hour, 0},
		"by 1 h, from 4 h late": {-4 * time.Hour, -5 * time.Hour},
		"by 1 day":              {24 * time.Hour, 0},
		"to 1970":               {0, ahead1970()},
		"from 2036":             {ahead2036(), 0},
		"forward by 1 h":        {0, time.Hour},
		"forward from 1970":     {ahead1970(), 0},
	}
	for how, ahead := range steps {
		for _, delays := range []bool{false, true} {
			kind := fmt.Sprintf("set %s, Acct-Delay-Time %t", how, delays)
			nasOf := func(x *scene) (before, after bng) {
				nas := x.bng("step")
				nas.delays = delays
				return nas.clock(ahead[0]), nas.clock(ahead[1])
			}
			p.scene(kind, func(x *scene) []step {
				before, after := nasOf(x)
				c1, c2 := x.session("c1", "c1", 1), x.session("c2", "c2", 1)
				return []step{
					sent("Start", before.start(c1), "opened", c1),
					sent("Interim", after.interim(c1), "refreshed", c1).after(2 * time.Second),
					sent("Stop", after.stop(c1), "stopped"),
					sent("Start of the next", after.start(c2), "opened", c2),
					sent("Stop of the next", after.stop(c2), "stopped"),
				}
			})
			p.scene(kind+", the Stop is lost", func(x *scene) []step {
				before, after := nasOf(x)
				c1, c2 := x.session("c1", "c1", 1), x.session("c2", "c2", 1)
				return []step{
					sent("Start", before.start(c1), "opened", c1),
					sent("Start of the next", after.start(c2), "took_over", c2).after(2 * time.Second),
					sent("Interim of the next", after.interim(c2), "refreshed", c2).after(2 * time.Second),
					sent("its Stop", after.stop(c2), "stopped"),
				}
			})
			if back := ahead[0] - ahead[1]; back > 0 && back < 48*time.Hour {
				continue // an old Start that arrives only now looks the same
			}
			p.scene(kind+", the same identifier again", func(x *scene) []step {
				before, after := nasOf(x)
				c := x.session("c", "c", 1)
				return []step{
					sent("Start", before.start(c), "opened", c),
					sent("Stop", after.stop(c), "stopped").after(7 * time.Second),
					sent("Start", after.start(c), "opened", c).after(3 * time.Second),
					sent("Interim", after.interim(c), "refreshed", c).after(time.Second),
				}
			})
		}
	}
	p.scene("set back by less than packets come in another order", func(x *scene) []step {
		nas, c1, c2 := x.bng("step"), x.session("c1", "c1", 1), x.session("c2", "c2", 1)
		return []step{
			sent("Start", nas.clock(40*time.Second).start(c1), "opened", c1),
			sent("Start of the next, as of before that", nas.start(c2), "held", c1).after(2 * time.Second),
			sent("its Interim", nas.interim(c2), "held", c1).after(2 * time.Second),
			sent("its Interim, by which the clock is known", nas.interim(c2), "took_over", c2).after(11 * time.Second),
			sent("late Stop of the first", nas.stop(c1).late(8*time.Second), "ended", c2),
			sent("Stop", nas.stop(c2), "stopped"),
		}
	})
	p.scene("summer time ends", func(x *scene) []step {
		nas, d := x.bng("dst"), x.session("d", "d", 1)
		nas.delays = false
		return []step{
			sent("Start", nas.clock(-4*time.Hour).start(d), "opened", d),
			sent("Stop, as of half an hour later", nas.clock(-5*time.Hour+30*time.Minute).stop(d).lasting(1801*time.Second), "stopped").after(time.Second),
		}
	})
	p.run()
}

// TestOddSessionTime: an impossible Acct-Session-Time does not outweigh the session's
// identifier, user, address and the order of arrival.
func TestOddSessionTime(t *testing.T) {
	w := start(t)
	p := play{w: w}
	odd := map[string]time.Duration{
		"70 s too long": 72 * time.Second, "hours too long": 23310 * time.Second, "0": 0,
		"all bits set": 1<<32*time.Second - time.Second, "right": 2 * time.Second,
	}
	for how, lasted := range odd {
		p.eachClock("Acct-Session-Time "+how, func(x *scene, nas bng) []step {
			a := x.session("a", "a", 1)
			return []step{
				sent("Start", nas.start(a), "opened", a),
				sent("Stop", nas.stop(a).lasting(lasted), "stopped").after(2 * time.Second),
				sent("the Stop again", nas.stop(a).lasting(lasted), "ended"),
			}
		})
		p.eachClock("miscounts, Acct-Session-Time "+how, func(x *scene, nas bng) []step {
			b := x.session("b", "b", 1)
			return []step{
				sent("Start", nas.start(b), "opened", b),
				sent("Interim", nas.interim(b).lasting(lasted), "refreshed", b).after(2 * time.Second),
				sent("Interim that is right", nas.interim(b), "refreshed", b),
				sent("Stop", nas.stop(b).lasting(lasted), "stopped"),
				sent("a late Interim", nas.interim(b), "ended"),
			}
		})
	}
	p.run()
}
