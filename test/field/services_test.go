package field

import (
	"testing"
	"time"

	"layeh.com/radius"
)

// TestServiceBesideTheSession_SES21: a BNG accounts a service, a queue or a host within the
// session, with its address and an Acct-Session-Id of its own. That changes no session,
// with a vendor's mark or with the Acct-Multi-Session-Id alone, before the session's Start,
// within the session and after it.
func TestServiceBesideTheSession_SES21(t *testing.T) {
	w := start(t)
	p := play{w: w}
	marks := map[string]func(session) []*radius.AVP{
		"no mark of a vendor":   func(session) []*radius.AVP { return nil },
		"Nokia's mark":          func(session) []*radius.AVP { return []*radius.AVP{nokiaMark()} },
		"Juniper's mark":        func(session) []*radius.AVP { return []*radius.AVP{juniperMark()} },
		"Cisco's mark":          func(s session) []*radius.AVP { return []*radius.AVP{ciscoMark(s)} },
		"Cisco's and Juniper's": func(s session) []*radius.AVP { return []*radius.AVP{ciscoMark(s), juniperMark()} },
	}
	for name, mark := range marks {
		for _, multi := range []string{"", "144DFF00000A0F56B71E43"} {
			p.twoClocks(name+", Acct-Multi-Session-Id of the session "+multi, func(x *scene, nas bng) []step {
				ses, svc, svc2 := x.session("sub", "144DFF00000A1156B71E44", 1), x.session("sub", "144DFF00000A2556B757DA", 1), x.session("sub", "144DFF00000A2656B757DB", 1)
				noted, kept := bindingKept(ses)
				return []step{
					sent("Start", nas.start(ses).multi(multi), "opened|linked", ses),
					done("it has its block", noted, ses),
					sent("Start of the service", nas.start(svc).within(ses, mark(ses)...), "service_ignored", ses),
					sent("Start of another", nas.start(svc2).within(ses, mark(ses)...), "service_ignored", ses),
					sent("Interim", nas.interim(ses).multi(multi), "refreshed", ses).after(2 * time.Second),
					sent("Interim of the service", nas.interim(svc).within(ses, mark(ses)...), "service_ignored", ses),
					sent("Interim of it to another daemon", nas.interim(svc).within(ses, mark(ses)...), "service_ignored", ses).restarted(),
					sent("Stop of the service", nas.stop(svc).within(ses, mark(ses)...), "service_ignored", ses),
					sent("Interim", nas.interim(ses).multi(multi), "refreshed", ses).after(time.Second),
					done("it has the same block", kept, ses),
					sent("Stop", nas.stop(ses).multi(multi), "stopped").after(time.Second),
					sent("Stop of the other service, after it", nas.stop(svc2).within(ses, mark(ses)...), "service_ignored|noted"),
					sent("Stop of the service again", nas.stop(svc).within(ses, mark(ses)...), "service_ignored|noted|ended"),
				}
			})
			p.twoClocks(name+", heard of before the session, Acct-Multi-Session-Id of the session "+multi, func(x *scene, nas bng) []step {
				ses, svc := x.session("sub", "A1156B71E44", 1), x.session("sub", "A2556B757DA", 1)
				before := []session{svc}
				if name != "no mark of a vendor" {
					before = nil
				}
				return []step{
					sent("Start of the service", nas.start(svc).within(ses, mark(ses)...), "service_ignored|opened", before...),
					sent("Start", nas.start(ses).multi(multi), "adopted|opened", ses),
					sent("Interim of the service", nas.interim(svc).within(ses, mark(ses)...), "service_ignored", ses).after(2 * time.Second),
					sent("Interim", nas.interim(ses).multi(multi), "refreshed", ses),
					sent("Stop of the service", nas.stop(svc).within(ses, mark(ses)...), "service_ignored", ses),
					sent("Interim", nas.interim(ses).multi(multi), "refreshed", ses).after(time.Second),
					sent("Stop", nas.stop(ses).multi(multi), "stopped"),
				}
			})
		}
	}
	p.eachClock("an Interim of the service comes after the session", func(x *scene, nas bng) []step {
		ses, svc := x.session("sub", "S1", 1), x.session("sub", "V1", 1)
		late := nas.interim(svc).within(ses)
		return []step{
			sent("Start", nas.start(ses), "opened", ses),
			sent("Start of the service", nas.start(svc).within(ses), "service_ignored", ses),
			done("an Interim of the service is sent and lost", func(*world) { late.now() }, ses),
			sent("Stop of the service", nas.stop(svc).within(ses), "service_ignored", ses).after(2 * time.Second),
			sent("Stop", nas.stop(ses), "stopped"),
			sent("the lost Interim again", late.counting(), "service_ignored|noted|ended").after(time.Second),
		}
	})
	p.eachClock("a host with an address of its own", func(x *scene, nas bng) []step {
		ses, host := x.session("sub", "S1", 1), x.session("sub", "H1", 2)
		return []step{
			sent("Start", nas.start(ses), "opened", ses),
			sent("Start of the host", nas.start(host).within(ses), "opened", ses, host),
			sent("Interim", nas.interim(ses), "refreshed", ses, host).after(2 * time.Second),
			sent("Interim of the host", nas.interim(host).within(ses), "refreshed", ses, host),
			sent("Stop of the host", nas.stop(host).within(ses), "stopped", ses),
			sent("Interim", nas.interim(ses), "refreshed", ses).after(time.Second),
			sent("Stop", nas.stop(ses), "stopped"),
		}
	})
	p.run()
}
