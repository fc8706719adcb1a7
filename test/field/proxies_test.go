package field

import (
	"net/netip"
	"testing"
	"time"
)

// newer is the time after which an Interim is certainly newer than an Accounting-On: event
// times are off by up to 2 s, and session times are whole seconds.
const newer = 4 * time.Second

// TestSecondProxy_SES02_SES15: the reports of one NAS through two proxies, which are
// clients of their own without a realm, are of one session; also after a restart of the
// daemon, and when an Accounting-On comes through either.
func TestSecondProxy_SES02_SES15(t *testing.T) {
	w := start(t)
	p := play{w: w}
	p.eachClock("two proxies", func(x *scene, nas bng) []step {
		other := nas.via(viaBNG2)
		p1, p2 := x.session("p1", "E1", 1), x.session("p2", "E2", 2)
		first := nas.start(p1)
		noted, kept := bindingKept(p1)
		return []step{
			sent("Start through the first", first, "opened", p1),
			done("it has its block", noted, p1),
			sent("Interim through the second", other.interim(p1), "refreshed", p1).after(1200 * time.Millisecond),
			done("it has the same block", kept, p1),
			sent("Interim through the first", nas.interim(p1), "refreshed", p1).after(time.Second),
			sent("Start again through the second", first.through(other), "refreshed", p1),
			sent("Start of another", other.start(p2), "opened", p1, p2),
			sent("its Interim through the first", nas.interim(p2), "refreshed", p1, p2).after(1200 * time.Millisecond),
			sent("Interim through the second, to another daemon", other.interim(p1), "refreshed", p1, p2).after(time.Second).restarted(),
			done("it has the same block", kept, p1, p2),
			sent("Stop through the second", other.stop(p1), "stopped", p2).after(time.Second),
			sent("Stop again through the first", nas.stop(p1), "ended", p2),
			sent("Stop of another through the first", nas.stop(p2), "stopped"),
		}
	})
	for _, way := range []struct{ start, interim, on string }{
		{viaBNG1, viaBNG2, viaBNG1}, {viaBNG1, viaBNG2, viaBNG2}, {viaBNG2, viaBNG1, viaBNG1}, {viaBNG2, viaBNG1, viaBNG2},
	} {
		p.scene("Accounting-On through "+way.on+", Starts through "+way.start, func(x *scene) []step {
			nas := x.bng("edge")
			p1, p2, p3 := x.session("p1", "E1", 1), x.session("p2", "E2", 2), x.session("p3", "E3", 3)
			return []step{
				sent("Start", nas.via(way.start).start(p1), "opened", p1),
				sent("Start of another", nas.via(way.start).start(p2), "opened", p1, p2),
				sent("Interim through the other", nas.via(way.interim).interim(p1), "refreshed", p1, p2).after(3 * time.Second),
				sent("Start through the other", nas.via(way.interim).start(p3), "opened", p1, p2, p3),
				sent("On", nas.via(way.on).on(), "restarted").after(3 * time.Second),
				sent("Interim of one that is online all the same", nas.via(way.interim).interim(p1), "opened", p1).after(newer),
			}
		})
	}
	p.run()
}

// TestRealm_SES02_SES15: clients of one realm, and one client with several prefixes, report
// the same NASes, from the first packet on.
func TestRealm_SES02_SES15(t *testing.T) {
	w := start(t)
	p := play{w: w}
	for kind, via := range map[string][2]string{"a realm": {viaCore1, viaCore2}, "prefixes": {viaEdge1, viaEdge2}} {
		p.eachClock(kind, func(x *scene, nas bng) []step {
			one, two := nas.via(via[0]), nas.via(via[1])
			p1, p2 := x.session("p1", "E1", 1), x.session("p2", "E2", 2)
			first, stop := one.start(p1).counting(), two.stop(p1).counting()
			noted, kept := bindingKept(p1)
			return []step{
				sent("Start", first, "opened", p1),
				done("it has its block", noted, p1),
				sent("Start again through the other", first.through(two), "refreshed", p1),
				sent("Start of another", one.start(p2), "opened", p1, p2),
				sent("Interim through the other", two.interim(p1), "refreshed", p1, p2).after(time.Second),
				sent("Interim through the other to another daemon", two.interim(p1), "refreshed", p1, p2).after(time.Second).restarted(),
				done("it has the same block", kept, p1, p2),
				sent("Stop through the other", stop, "stopped", p2),
				sent("Stop again through the first", stop.through(one), "ended", p2),
				sent("On through the other, the first it says of that one", two.on(), "restarted").after(3 * time.Second),
				sent("Interim of one that is online all the same", one.interim(p2), "opened", p2).after(newer),
				sent("Stop of it", two.stop(p2), "stopped"),
			}
		})
	}
	p.scene("On through the other is its first packet", func(x *scene) []step {
		nas, u := x.bng("edge"), x.session("u", "E1", 1)
		return []step{
			sent("Start", nas.via(viaCore1).start(u), "opened", u),
			sent("On", nas.via(viaCore2).on(), "restarted").after(3 * time.Second),
		}
	})
	p.run()
}

// TestOneNameOfTwoNASes_SES16: two NASes behind clients of their own have the factory's
// name. Their sessions, users and restarts are kept apart.
func TestOneNameOfTwoNASes_SES16(t *testing.T) {
	w := start(t)
	p := play{w: w}
	p.eachClock("two of one name", func(x *scene, one bng) []step {
		two := one.via(viaBNG2)
		one.address, two.address = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		a, b := x.session("a", "80000001", 1), x.session("b", "80000001", 2)
		return []step{
			sent("Start at one", one.start(a), "opened", a),
			sent("Start at two, of the same identifier", two.start(b), "opened", a, b),
			sent("Interim at one", one.interim(a), "refreshed", a, b).after(3 * time.Second),
			sent("Interim at two", two.interim(b), "refreshed", a, b),
			sent("On of two", two.on(), "restarted", a),
			sent("Interim at one", one.interim(a), "refreshed", a).after(time.Second),
			sent("Start at two", two.start(b), "opened|took_over", a, b),
			sent("Stop at one", one.stop(a), "stopped", b).after(time.Second),
		}
	})
	p.scene("an On of a name that only another client reports", func(x *scene) []step {
		one, a := x.bng("MikroTik"), x.session("a", "80000001", 1)
		return []step{
			sent("Start at one", one.start(a), "opened", a),
			sent("On of two", one.via(viaBNG2).on(), "foreign_nas", a).after(3 * time.Second),
			sent("Interim at one", one.interim(a), "refreshed", a),
		}
	})
	p.run()
}

// TestAddressOfAnotherClient_SES16: reports of a NAS behind another client about the
// address of a session change nothing for that session, also after a restart of the daemon,
// and with any clock. Once it has ended, by Stop, restart of its NAS or expiry, the other
// session gets the address with its next Interim.
func TestAddressOfAnotherClient_SES16(t *testing.T) {
	w := start(t)
	p := play{w: w}
	p.eachClock("stop", func(x *scene, nas bng) []step {
		own, other := x.bng("own"), nas.via(viaBNG2)
		u, v, late, dead := x.session("u", "E1", 1), x.session("v", "E2", 1), x.session("w", "E3", 1), x.session("d", "E4", 1)
		noted, kept := bindingKept(u)
		return []step{
			sent("Start", own.start(u), "opened", u),
			done("it has its block", noted, u),
			sent("Start of the other", other.start(v), "foreign_holder", u),
			sent("Interim of the other", other.interim(v), "foreign_holder", u).after(1200 * time.Millisecond),
			sent("Interim of the other that counts from before", other.interim(late).lasting(time.Hour), "foreign_holder", u),
			sent("Interim", own.interim(u), "refreshed", u),
			sent("Stop of a session of the other that never had it", other.stop(dead), "noted", u),
			sent("Stop of the other", other.stop(v), "noted", u),
			sent("Interim", own.interim(u), "refreshed", u).after(time.Second),
			sent("Start of the other to another daemon", other.clock(other.ahead+299*time.Second).start(late), "foreign_holder", u).restarted(),
			sent("Interim", own.interim(u), "refreshed", u).after(time.Second),
			done("it has its block still", kept, u),
			sent("Stop", own.stop(u), "stopped"),
			sent("Interim of the other", other.interim(late), "opened", late).after(time.Second),
			sent("late Stop", own.stop(u), "ended", late),
		}
	})
	p.scene("restart of the holder's NAS", func(x *scene) []step {
		own, other := x.bng("own"), x.bng("other").via(viaBNG2)
		u, v := x.session("u", "E1", 1), x.session("v", "E2", 1)
		return []step{
			sent("Start", own.start(u), "opened", u),
			sent("Start of the other", other.start(v), "foreign_holder", u),
			sent("On of the other", other.on(), "restarted", u),
			sent("On", own.on(), "restarted").after(3 * time.Second),
			sent("Interim of the other", other.interim(v), "opened", v).after(newer),
		}
	})
	p.scene("expiry", func(x *scene) []step {
		own, other := x.bng("own"), x.bng("other").via(viaBNG2)
		u, v := x.session("u", "E1", 1), x.session("v", "E2", 1)
		expire := func(w *world) { w.redis("PEXPIRE", recordKey(u.inside), "1") } // not by time: other scenes take some
		return []step{
			sent("Start", own.start(u), "opened", u),
			sent("Start of the other", other.start(v), "foreign_holder", u),
			done("its record expires", expire),
			sent("Interim of the other", other.interim(v), "opened", v).after(time.Second),
			sent("late Interim", own.interim(u), "foreign_holder|ended", v),
		}
	})
	p.run()
}

// TestRestartThatIsNone_SES15: a NAS sends Accounting-On or -Off although its subscribers
// stay online. Their next Interims bring them back, with the addresses and ports of before.
func TestRestartThatIsNone_SES15(t *testing.T) {
	w := start(t)
	p := play{w: w}
	for what, make := range map[string]func(bng) *packet{"On": bng.on, "Off": bng.off} {
		p.eachClock(what, func(x *scene, nas bng) []step {
			j1, j2 := x.session("j1", "j1", 1), x.session("j2", "j2", 2)
			var before string
			block := func(w *world) string {
				b := w.binding(j1)
				b.State = ""
				return b.OutsideAddress + " " + time.Duration(b.FirstPort).String()
			}
			noted := func(w *world) { before = block(w) }
			same := func(w *world) {
				w.t.Helper()
				if now := block(w); now != before {
					w.t.Errorf("%s: %v has %s, had %s", x.name, j1, now, before)
				}
			}
			first := nas.start(j1)
			return []step{
				sent("Start", first, "opened", j1),
				sent("Start of another", nas.start(j2), "opened", j1, j2),
				done("it has its block", noted, j1, j2),
				sent(what, make(nas), "restarted").after(3 * time.Second),
				sent("Interim", nas.interim(j1), "opened", j1).after(newer),
				done("it has the same block", same, j1),
				sent("Interim of the other", nas.interim(j2), "opened", j1, j2),
				sent("Interim", nas.interim(j1), "refreshed", j1, j2).after(time.Second),
				sent("Start again", first, "outdated|refreshed", j1, j2),
				sent(what+" after 5 min, as it were", make(nas), "restarted").after(time.Second),
				sent("Interim", nas.interim(j1), "opened", j1).after(newer),
				done("it has the same block", same, j1),
				sent("Stop of the other", nas.stop(j2), "noted", j1),
				sent("Stop", nas.stop(j1), "stopped").after(time.Second),
				sent("a late Interim", nas.interim(j1), "ended"),
			}
		})
	}
	p.run()
}
