package subscriber

import "fmt"

// Verdict is the outcome of an accounting event.
type Verdict uint8

// The verdicts.
const (
	NotHere         Verdict = iota // the group does not know the session, and need not
	Opened                         // a record was created
	Refreshed                      // the session's record was refreshed
	Adopted                        // a record without a session of its own became this session's
	Linked                         // another link of a multilink came up
	Unlinked                       // a link of a multilink ended, and not the last
	Moved                          // the session changed its address
	TookOver                       // a record was created, another session's on that address ended
	Stopped                        // the session's record was deleted
	Noted                          // remembered, without a record in this group
	Left                           // the session is now online in another group, or at an address of none
	Stale                          // ignored: older than the known state
	Ended                          // ignored: the session is over
	Outdated                       // ignored: began before its NAS restarted
	Held                           // ignored: a newer session holds the address
	Restarted                      // a restart of a NAS was recorded
	RestartRepeated                // ignored: that restart is known
	RestartIgnored                 // ignored: of a NAS whose restarts say nothing about its sessions
	ServiceIgnored                 // ignored: of a service within a session
	ForeignNAS                     // ignored: a restart of a NAS that only another client reports
	NASConflict                    // ignored: a restart under a name that several NASes have
	ForeignAddress                 // ignored: the client may not report the address
	ForeignHolder                  // ignored: a session that another client reports holds the address
	ClientFull                     // ignored: the client has as many subscribers online as it may
)

var verdictNames = [...]string{
	NotHere: "not_here", Opened: "opened", Refreshed: "refreshed", Adopted: "adopted", Linked: "linked", Unlinked: "unlinked",
	Moved: "moved", TookOver: "took_over", Stopped: "stopped", Noted: "noted", Left: "left",
	Stale: "stale", Ended: "ended", Outdated: "outdated", Held: "held",
	Restarted: "restarted", RestartRepeated: "restart_repeated", RestartIgnored: "restart_ignored",
	ServiceIgnored: "service_ignored", ForeignNAS: "foreign_nas", NASConflict: "nas_conflict",
	ForeignAddress: "foreign_address", ForeignHolder: "foreign_holder", ClientFull: "client_full",
}

// Known reports whether there is such a verdict.
func (v Verdict) Known() bool { return int(v) < len(verdictNames) }

// Refused reports whether the event changed nothing because of its content: a
// replay, a NAS whose clock or identifiers are wrong, or a client that reports
// sessions which are not its own.
func (v Verdict) Refused() bool {
	switch v {
	case Stale, Ended, Outdated, Held, ForeignNAS, NASConflict, ForeignAddress, ForeignHolder, ClientFull:
		return true
	}
	return false
}

// Verdicts returns all verdicts that are reported: all but NotHere.
func Verdicts() []Verdict {
	all := make([]Verdict, 0, len(verdictNames)-1)
	for v := NotHere + 1; v.Known(); v++ {
		all = append(all, v)
	}
	return all
}

// String returns the verdict as a metric label.
func (v Verdict) String() string {
	if !v.Known() {
		return fmt.Sprintf("Verdict(%d)", uint8(v))
	}
	return verdictNames[v]
}
