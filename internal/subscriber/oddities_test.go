package subscriber

import (
	"net/netip"
	"testing"
	"time"
)

// packet is an event of alice's session at home that arrives at a time after
// t0. It has no time of its own unless a change adds one.
func packet(kind EventKind, after time.Duration, change ...func(*Event)) Event {
	ev := Event{Kind: kind, SessionID: me, UserName: "alice", Inside: home, Arrival: at(after), Delay: -1, SessionTime: -1}
	for _, f := range change {
		f(&ev)
	}
	return ev
}

func stamp(after time.Duration) func(*Event) { return func(ev *Event) { ev.Stamp = at(after) } }
func delayed(by time.Duration) func(*Event)  { return func(ev *Event) { ev.Delay = by } }
func policy(p RestartPolicy) func(*Event)    { return func(ev *Event) { ev.Restarts = p } }
func bundle(id string, n uint32) func(*Event) {
	return func(ev *Event) { ev.MultiSessionID, ev.LinkCount = id, n }
}
func from(address netip.Addr) func(*Event) { return func(ev *Event) { ev.NASAddress = address } }
func session(id, user string) func(*Event) {
	return as(SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: id}, user)
}
func ofNAS(nas, id, user string) func(*Event) {
	return as(SessionID{Client: "bng1", NAS: nas, AcctSessionID: id}, user)
}
func prompt(ahead time.Duration) func(*Event) {
	return func(ev *Event) { ev.Stamp = ev.Arrival.Add(ahead) }
}
func count(d time.Duration) func(*Event) { return up(d) }
func nasRestarts(after time.Duration, change ...func(*Event)) Event {
	ev := packet(EventAccountingOn, after, change...)
	ev.UserName, ev.Inside, ev.AcctSessionID = "", netip.Addr{}, ""
	return ev
}

// TestOddities replays reports of BNG operators, as packets: the verdict of
// each, and the sessions online at the end.
func TestOddities(t *testing.T) {
	const (
		s, m, h = time.Second, time.Minute, time.Hour
		day     = 24 * h
	)
	start, interim, stop := EventStart, EventInterim, EventStop
	clock := prompt(0)
	bobA, bob, aliceB := session("a", "bob"), session("b", "bob"), session("b", "alice")
	service := func(ev *Event) { ev.AcctSessionID, ev.MultiSessionID = "s", "a" }
	proxy2 := as(SessionID{Client: "bng2", NAS: "nas1", AcctSessionID: "a"}, "alice")
	nas1, nas2 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	isHome, isAway, nobody := map[netip.Addr]string{home: "a"}, map[netip.Addr]string{away: "a"}, map[netip.Addr]string(nil)
	homeB := map[netip.Addr]string{home: "b"}
	tests := []struct {
		name   string
		turns  []turn
		online map[netip.Addr]string
	}{
		// Clocks.
		{"SES-13 clock 5 days behind, as after a night without power", []turn{
			{packet(start, 0, prompt(-5*day)), Opened},
			{packet(interim, 10*m, prompt(-5*day), count(10*m)), Refreshed},
			{packet(stop, 20*m, prompt(-5*day), count(20*m)), Stopped},
			{packet(start, 21*m, prompt(-5*day), bob), Opened},
		}, homeB},
		{"SES-13 clock at its factory date until NTP, in the middle of a session", []turn{
			{packet(start, 0, prompt(-18*365*day)), Opened},
			{packet(interim, 10*m, clock, count(10*m)), Refreshed},
			{packet(start, 11*m, bob, clock), TookOver},
			{packet(interim, 21*m, bob, clock, count(10*m)), Refreshed},
		}, homeB},
		{"SES-07 two control planes of one NAS, whose clocks are 5 min apart", []turn{
			{packet(start, 0, prompt(5*m)), Opened},
			{packet(start, 2*m, bob, clock), TookOver},
			{packet(interim, 12*m, prompt(5*m), bob, count(10*m)), Refreshed},
			{packet(interim, 22*m, clock, bob, count(20*m)), Refreshed},
			{packet(stop, 23*m, prompt(5*m), bob, count(21*m)), Stopped},
		}, nobody},
		{"SES-15 clock ahead before NTP, and the On repeated unchanged", []turn{
			{nasRestarts(0, stamp(3*m)), Restarted},
			{packet(start, 5*s, clock), Opened},
			{nasRestarts(20*s, stamp(3*m)), RestartRepeated},
			{packet(interim, 10*m, clock, count(10*m)), Refreshed},
		}, isHome},
		{"SES-15 clock ahead before NTP sets it in the middle of the first Starts", []turn{
			{nasRestarts(0, stamp(3*m)), Restarted},
			{packet(start, 5*s, prompt(3*m)), Opened},
			{packet(start, 15*s, bob, at1(away), clock), Opened},
			{packet(interim, 10*m, bob, at1(away), clock, count(10*m)), Refreshed},
			{packet(stop, 10*m, clock, count(10*m)), Stopped},
		}, map[netip.Addr]string{away: "b"}},
		{"SES-15 a clock that was right before boots with the time of the power cut", []turn{
			{packet(start, 0, clock), Opened},
			{nasRestarts(30*m, prompt(-20*m)), Restarted},
			{packet(start, 31*m, bob, prompt(-20*m)), TookOver},
			{packet(interim, 41*m, bob, prompt(-20*m), count(10*m)), Refreshed},
			{packet(interim, 51*m, bob, clock, count(20*m)), Refreshed},
		}, homeB},
		{"SES-06 a steady clock goes on over a restart: a late Start of another NAS's address", []turn{
			{packet(interim, 0, clock, session("w", "w"), at1(away)), Opened},
			{nasRestarts(10*m, clock), Restarted},
			{packet(start, 20*m, ofNAS("nas2", "z", "zoe"), clock), Opened},
			{packet(start, 30*m, stamp(2*m)), Held},
		}, map[netip.Addr]string{home: "z", away: "w"}},
		{"SES-06 restarts that are none do not make the clock unknown", []turn{
			{packet(start, 0, clock), Opened},
			{nasRestarts(5*m, clock, policy(RestartsIgnored)), RestartIgnored},
			{packet(interim, 10*m, clock, count(10*m)), Refreshed},
			{packet(start, 12*m, bob, ofNAS("nas1", "b", "bob"), stamp(-h), delayed(72*m)), Held},
		}, isHome},
		{"SES-06 Start kept for 2 h, and the holder moved to the address since", []turn{
			{packet(start, 0, ofNAS("nas2", "z", "zoe"), at1(away)), Opened},
			{packet(interim, 2*h, ofNAS("nas2", "z", "zoe"), count(2*h)), Moved},
			{packet(start, 2*h+10*m, delayed(h)), Held},
			{packet(interim, 2*h+20*m, ofNAS("nas2", "z", "zoe"), count(2*h+20*m)), Refreshed},
		}, map[netip.Addr]string{home: "z"}},
		// Repeats.
		{"SES-02 Start again, stamp kept and delay counted", []turn{
			{packet(start, 0, clock), Opened},
			{packet(start, 11*m, stamp(0), delayed(11*m)), Refreshed},
		}, isHome},
		{"SES-02 Start again, stamped anew and delay counted", []turn{
			{packet(start, 0, clock), Opened},
			{packet(start, 11*m, stamp(11*m), delayed(11*m)), Refreshed},
		}, isHome},
		{"SES-02 Start without stamp, unchanged for hours", []turn{
			{packet(start, 0, delayed(0)), Opened},
			{packet(start, 3*h, delayed(0)), Refreshed},
		}, isHome},
		{"SES-11 a Stop that overtakes its Start", []turn{
			{packet(stop, s, count(s)), Noted},
			{packet(start, 2*s), Ended},
		}, nobody},
		{"SES-10 an Interim right after the Stop", []turn{
			{packet(start, 0), Opened},
			{packet(stop, 10*m, count(10*m)), Stopped},
			{packet(interim, 10*m+s, count(10*m)), Ended},
			{packet(interim, 12*m, count(5*m)), Ended},
		}, nobody},
		{"SES-10 the same, and the NAS has changed the User-Name since the Start", []turn{
			{packet(start, 0), Opened},
			{packet(interim, 10*m, count(10*m), asBob), Refreshed},
			{packet(stop, 20*m, count(20*m), asBob), Stopped},
			{packet(interim, 20*m+s, count(20*m), asBob), Ended},
		}, nobody},
		{"ACCT-16 a delay that cannot be", []turn{
			{packet(start, 0, delayed(1<<31*s)), Opened},
			{packet(interim, 10*m, delayed(1<<31*s), count(10*m)), Refreshed},
			{packet(stop, 20*m, delayed(1<<31*s), count(20*m)), Stopped},
		}, nobody},
		// Identifiers used again.
		{"SES-12 same identifier seconds after its Stop, without stamps", []turn{
			{packet(start, 0), Opened},
			{packet(stop, 2*m, count(2*m)), Stopped},
			{packet(start, 2*m+10*s), Ended},
			{packet(interim, 12*m+10*s, count(10*m)), Opened},
		}, isHome},
		{"SES-12 same identifier seconds after its Stop, with stamps", []turn{
			{packet(start, 0, clock), Opened},
			{packet(stop, 2*m, clock, count(2*m)), Stopped},
			{packet(start, 2*m+10*s, clock), Opened},
		}, isHome},
		{"SES-12 identifier of another user's: that one's Start comes again", []turn{
			{packet(start, 0, clock), Opened},
			{packet(start, 10*m, clock, bobA), TookOver},
			{packet(start, 12*m, stamp(0)), Stale},
			{packet(stop, 20*m, clock, bobA, count(10*m)), Stopped},
			{packet(start, 21*m, stamp(0)), Ended},
		}, nobody},
		{"SES-12 the same without stamps: whose Interim comes has the address", []turn{
			{packet(start, 0), Opened},
			{packet(start, 10*m, bobA), TookOver},
			{packet(start, 12*m), TookOver},
			{packet(interim, 20*m, bobA, count(10*m)), TookOver},
			{packet(interim, 30*m, bobA, count(20*m)), Refreshed},
			{packet(stop, 40*m, bobA, count(30*m)), Stopped},
		}, nobody},
		{"SES-12 late Stop of another user's session, whose Start was not heard", []turn{
			{packet(start, 0), Opened},
			{packet(stop, 5*m, bobA, count(2*h)), Stale},
			{packet(interim, 10*m, count(10*m)), Refreshed},
		}, isHome},
		{"SES-12 wrong Stop: the count goes on", []turn{
			{packet(start, 0), Opened},
			{packet(stop, 10*m), Stopped},
			{packet(interim, 20*m, count(20*m)), Opened},
			{packet(stop, 30*m, count(30*m)), Stopped},
		}, nobody},
		{"SES-12 restart without an On, same user and address, identifiers from the beginning", []turn{
			{packet(start, 0, clock), Opened},
			{packet(interim, 10*m, clock, count(10*m)), Refreshed},
			{packet(start, 15*m, clock), TookOver},
			{packet(interim, 25*m, clock, count(10*m)), Refreshed},
			{packet(stop, 26*m, stamp(12*m), count(12*m)), Stale},
			{packet(stop, 35*m, clock, count(20*m)), Stopped},
		}, nobody},
		{"SES-01 one identifier in one second, and one Stop without User-Name", []turn{
			{packet(start, 0), Opened},
			{packet(start, 0, bobA, at1(away)), Opened},
			{packet(stop, 10*m, anyUser, at1(away), count(10*m)), Stopped},
		}, isHome},
		{"SES-01 two NASes of one factory name, told apart by user and address", []turn{
			{packet(start, 0, from(nas1)), Opened},
			{packet(start, m, bobA, at1(away), from(nas2)), Opened},
			{packet(interim, 10*m, from(nas1), count(10*m)), Refreshed},
			{packet(interim, 11*m, bobA, at1(away), from(nas2), count(10*m)), Refreshed},
			{packet(stop, 12*m, from(nas1), count(12*m)), Stopped},
		}, isAway},
		// Counts.
		{"SES-12 a count in milliseconds", []turn{
			{packet(start, 0), Opened},
			{packet(interim, 10*m, count(600_000*s)), Refreshed},
			{packet(stop, 20*m, count(1_200_000*s)), Stopped},
		}, nobody},
		{"SES-12 a count in minutes", []turn{
			{packet(start, 0), Opened},
			{packet(interim, 10*m, count(10*s)), Refreshed},
			{packet(stop, 20*m, count(20*s)), Stopped},
		}, nobody},
		{"SES-12 a count that began anew when a station roamed", []turn{
			{packet(start, 0), Opened},
			{packet(interim, 10*m, count(10*m)), Refreshed},
			{packet(interim, 20*m, count(5*m)), Refreshed},
			{packet(interim, 20*m, count(5*m), at1(away)), Moved},
			{packet(stop, 30*m, count(15*m), at1(away)), Stopped},
		}, nobody},
		{"SES-03 a count that begins 25 s before the Start: the one before is not newer", []turn{
			{packet(start, 0), Opened},
			{packet(interim, 10*m, bob, count(10*m+5*s)), TookOver},
		}, homeB},
		{"SES-14 the same, but the one before is heard of", []turn{
			{packet(start, 0), Opened},
			{packet(interim, 10*m, count(10*m)), Refreshed},
			{packet(interim, 10*m+s, bob, count(10*m+30*s)), Held},
		}, isHome},
		// Addresses and names.
		{"SES-05 Start and Interims before IPCP, then the address", []turn{
			{packet(start, 0, noAddress), NotHere},
			{packet(interim, 5*s, noAddress, count(5*s)), NotHere},
			{packet(interim, 10*s, count(10*s)), Opened},
			{packet(interim, 10*m, noAddress, count(10*m)), Refreshed},
			{packet(stop, 20*m, noAddress, count(20*m)), Stopped},
		}, nobody},
		{"SES-09 IPv4 taken away and given anew within the session", []turn{
			{packet(start, 0), Opened},
			{packet(interim, 10*m, noAddress, count(10*m)), Refreshed},
			{packet(interim, 11*m, at1(away), count(11*m)), Moved},
			{packet(interim, 5*m, count(5*m)), Stale},
		}, isAway},
		{"SES-02 NAS with an identifier, whose address follows its uplink", []turn{
			{packet(start, 0, from(nas1)), Opened},
			{packet(interim, 10*m, from(nas2), count(10*m)), Refreshed},
			{packet(stop, 20*m, from(nas2), count(20*m)), Stopped},
		}, nobody},
		{"SES-02 two proxies, each with a part of the packets", []turn{
			{packet(start, 0, from(nas1)), Opened},
			{packet(start, s, proxy2, from(nas1)), Refreshed},
			{packet(interim, 10*m, proxy2, from(nas1), count(10*m)), Refreshed},
			{packet(interim, 20*m, from(nas1), count(20*m)), Refreshed},
			{packet(stop, 30*m, proxy2, from(nas1), count(30*m)), Stopped},
			{packet(stop, 30*m+s, from(nas1), count(30*m)), Ended},
		}, nobody},
		{"SES-07 line lost, Stop comes after the next Start", []turn{
			{packet(start, 0), Opened},
			{packet(start, 10*m, aliceB), TookOver},
			{packet(stop, 10*m+s, count(9*m)), Ended},
			{packet(interim, 20*m, aliceB, count(10*m)), Refreshed},
		}, homeB},
		{"SES-07 zombie on another NAS goes on to report itself", []turn{
			{packet(start, 0, ofNAS("nas2", "z", "alice")), Opened},
			{packet(start, 10*m), TookOver},
			{packet(interim, 11*m, ofNAS("nas2", "z", "alice"), count(11*m)), Ended},
			{packet(interim, 20*m, count(10*m)), Refreshed},
			{packet(stop, 21*m, ofNAS("nas2", "z", "alice"), count(21*m)), Ended},
		}, isHome},
		// Multilinks and services.
		{"SES-20 the bundle goes by its first link (RFC 2866 section 5.12)", []turn{
			{packet(start, 0, bundle("a", 1)), Opened},
			{packet(start, s, ofLink(you), bundle("a", 2)), Linked},
			{packet(stop, 10*m, bundle("a", 2), count(10*m)), Unlinked},
			{packet(stop, 11*m, ofLink(you), bundle("a", 2), count(11*m)), Stopped},
		}, nobody},
		{"SES-21 a service begins again and again", []turn{
			{packet(start, 0), Opened},
			{packet(start, m, service), ServiceIgnored},
			{packet(stop, 2*m, service, count(m)), ServiceIgnored},
			{packet(start, 3*m, service), ServiceIgnored},
			{packet(interim, 10*m, count(10*m)), Refreshed},
		}, isHome},
		// Restarts.
		{"SES-15 Off, On, and the Stops of before after both", []turn{
			{packet(start, 0, clock), Opened},
			{packet(EventAccountingOff, 10*m, clock, noAddress), Restarted},
			{nasRestarts(15*m, clock), Restarted},
			{packet(stop, 16*m, stamp(9*m), count(9*m)), Stopped},
			{packet(start, 17*m, clock), Opened},
		}, isHome},
		{"SES-15 no battery: each boot is at the same second of 2008", []turn{
			{nasRestarts(0, stamp(-18*365*day)), Restarted},
			{packet(start, m, stamp(-18*365*day+m)), Opened},
			{nasRestarts(2*h, stamp(-18*365*day)), Restarted},
			{packet(start, 2*h+m, bob, stamp(-18*365*day+m)), TookOver},
			{packet(interim, 2*h+11*m, bob, stamp(-18*365*day+11*m), count(10*m)), Refreshed},
		}, homeB},
		{"SES-15 On repeated for as long as nobody answers", []turn{
			{packet(start, 0, clock), Opened},
			{nasRestarts(10*m, clock), Restarted},
			{nasRestarts(11*m, stamp(10*m), delayed(m)), RestartRepeated},
			{packet(start, 12*m, clock, bob, at1(away)), Opened},
			{nasRestarts(13*m, stamp(10*m), delayed(3*m)), RestartRepeated},
			{packet(interim, 20*m, clock, bob, at1(away), count(8*m)), Refreshed},
			{packet(interim, 20*m, clock, count(20*m)), Refreshed},
		}, map[netip.Addr]string{home: "a", away: "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clocks := map[SessionID]*Clock{}
			for i := range tt.turns {
				ev := &tt.turns[i].event
				if clocks[ev.NASOnly()] == nil {
					clocks[ev.NASOnly()] = new(Clock)
				}
				clocks[ev.NASOnly()].Place(ev)
			}
			play(t, tt.turns, tt.online)
		})
	}
}
