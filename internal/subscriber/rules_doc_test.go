package subscriber

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/accounting-rules.md anew")

const rulesDoc = "../../docs/accounting-rules.md"

// TestRulesDocument compares the page with the tables that run. After a change
// of the rules: go test ./internal/subscriber -run RulesDocument -update
func TestRulesDocument(t *testing.T) {
	want := rulesDocument()
	if *update {
		if err := os.WriteFile(rulesDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(rulesDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/accounting-rules.md is not what the tables say; run with -update and read the difference")
	}
}

var scopeTitles = [...]struct{ title, text string }{
	Here: {"The address is of this group", "The event has a Framed-IP-Address, and it lies in one of the group's inside prefixes."},
	NoAddress: {"No address", "The event has no Framed-IP-Address (or 0.0.0.0, 255.255.255.254, 255.255.255.255). What the group knows of the session " +
		"goes on, or ends. A session that begins anew is online without an address, until an event tells one; the record of the one before ends."},
	Elsewhere: {"The address is not of this group", "It lies in another group, or in none: the address of a customer without NAT."},
	Recorded:  {"Sessions without CGN", "The reserved group `_` remembers the sessions whose address is of no group. There are no records in it, so nothing is translated."},
}

var standingTexts = [standings]struct{ name, text string }{
	StandingUnknown: {"unknown", "Nothing is known of the session: it is new, or its end was so long ago that it is forgotten (24 h; 5 min where more than a million are remembered)."},
	StandingSame: {"online", "The session is online, and the event is about it. A Start is the known one sent again: at most 5 s later, " +
		"same user, same address. A Stop or Interim is not older than the session (2 s are allowed for whole seconds of delay; 60 s for Acct-Session-Time)."},
	StandingEarlier: {"online, event is older", "The event is of an earlier session under the same Acct-Session-Id, or of where this one was before: " +
		"older than its start, by event time or by event time less Acct-Session-Time; or from another address and older than what was last heard."},
	StandingLater: {"begins anew", "The Acct-Session-Id is used again: a Start clearly newer than the known start or end, or of another user or address; " +
		"an Interim or Stop whose Acct-Session-Time says that its session began after the known one ended."},
	StandingEnded: {"ended", "The session is over, and remembered (a tombstone): after its Stop, a restart of its NAS, or when another session " +
		"took its address. The event is late, or sent again."},
	StandingLapsed: {"ended without a word of the NAS", "Its record expired, was deleted by gRPC or in the database, or the session went to another group or to an address of none; or another " +
		"session took an address that this one had left. The event is newer than that: the NAS says that the session is online."},
	StandingBefore: {"began before its NAS restarted", "An Accounting-On or -Off of its NAS is newer than the start of the session. In the same second the later arrival wins. " +
		"A Stop is taken all the same."},
}

var stepTexts = [...]string{
	StepNothing: "nothing",
	StepIgnore:  "ignored",
	StepBegin:   "**begins**",
	StepRefresh: "**goes on**",
	StepClose:   "**ends**",
	StepNote:    "end is noted",
	StepLeave:   "**leaves**",
}

var holdingTexts = [holdings]string{
	HoldingFree:      "nobody",
	HoldingOwn:       "the session itself",
	HoldingAdoptable: "a record that waits for its session: put by hand for this user, written back after the database lost it (but for a session that starts later), or of the same session with other addresses",
	HoldingLink:      "another link of the same multilink (Acct-Multi-Session-Id, client and NAS)",
	HoldingOlder:     "another session, which began no later",
	HoldingNewer:     "another session, which began later",
}

const rulesIntro = `# What an accounting event does

This page is written from the tables that run (internal/subscriber/rules.go), and a
test compares them. It says for each state of a session what a Start, an
Interim-Update and a Stop do.

A session is known by RADIUS client, NAS (NAS-Identifier, else NAS address) and
Acct-Session-Id. User-Name, port and Class are no part of it. Events are put in
order by **event time**: Event-Timestamp if it is at most 48 h old and at most 5 min
ahead when the packet arrives, else arrival less Acct-Delay-Time. Arrival counts
only between equal event times: the later one wins.

Every event is answered once Redis has what it changes, also one that is ignored: the
NAS need not send it again. Acct-Status-Types other than these three and
Accounting-On and -Off are answered and change nothing (` + "`no_record`" + ` in
[metrics.md](metrics.md)); a packet that lacks Acct-Status-Type or Acct-Session-Id is
not answered, unless its client has ` + "`acknowledge_incomplete`" + `.

What an event comes to is counted in ` + "`sessiond_accounting_verdicts_total`" + `, once in
each group that it concerns.

| what happens | means | counted as |
|---|---|---|
| **begins** | The session is online. It gets the address if [its holder](#who-holds-the-address) lets go. The record of an older session under its identifier ends first (SUPERSEDED). | as told there; ` + "`took_over`" + ` where an older one ended; ` + "`noted`" + ` without an address |
| **goes on** | The record is refreshed: time to live, counters, event time. With another address than before the session moves, if the holder of that lets go: the old record ends (SUPERSEDED), a new one begins. | ` + "`refreshed`, `moved`" + ` |
| **ends** | The record is deleted (STOP), and with it the NAT sessions; of several links of a multilink only the last does that. The end is remembered for 24 h. | ` + "`stopped`; `unlinked`" + ` for a link before the last; ` + "`noted`" + ` where the record is gone already |
| end is noted | No record is touched. The end is remembered, so that a Start or Interim that comes late does not bring the session to life. | ` + "`noted`" + ` |
| **leaves** | The record in this group ends (SUPERSEDED): the session is at an address of another group, or of none, now. | ` + "`left`" + ` |
| ignored | Nothing changes. | the name in parentheses |
| nothing | The group does not know the session, and need not. | not counted |
| – | Cannot be. | |

## Accounting of services

Accounting of a service within a session (Juniper's and Cisco's per-service
accounting) is answered and ignored (` + "`service_ignored`" + `): a service that stops does
not end its subscriber.

## Restart of a NAS

Accounting-On and Accounting-Off end all sessions of that client's NAS that began
before, whatever their state (` + "`restarted`" + `). The answer waits for a mark in the
database only; the sessions are ended behind it. An On or Off within 2 s of the known one, or older, is
the same one sent again (` + "`restart_repeated`" + `). One that names a NAS whose sessions only
another client reports is ignored, logged and counted (` + "`foreign_nas`" + `).
`

const whichTable = `An event is looked at in every group, because its session may have been in another one
before. Its Framed-IP-Address tells which table applies:

| the address is | in its own group | in the other groups | in the reserved group |
|---|---|---|---|
| of a group | [of this group](#the-address-is-of-this-group) | [not of this group](#the-address-is-not-of-this-group) | [not of this group](#the-address-is-not-of-this-group) |
| of no group | | [not of this group](#the-address-is-not-of-this-group) | [without CGN](#sessions-without-cgn) |
| absent | | [no address](#no-address) | [without CGN](#sessions-without-cgn) |

A session with several Framed-IP-Address counts as one for each of them.
`

// rulesDocument renders the page.
func rulesDocument() string {
	var b strings.Builder
	b.WriteString(rulesIntro)
	b.WriteString("\n## States of a session\n\n| state | when |\n|---|---|\n")
	for _, s := range standingTexts {
		fmt.Fprintf(&b, "| %s | %s |\n", s.name, s.text)
	}
	b.WriteString("\n## State and event\n\n" + whichTable)
	for scope, rows := range sessionRules {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", scopeTitles[scope].title, scopeTitles[scope].text)
		b.WriteString("| state of the session | Start | Interim | Stop |\n|---|---|---|---|\n")
		for standing, r := range rows {
			fmt.Fprintf(&b, "| %s |", standingTexts[standing].name)
			for kind, step := range r {
				fmt.Fprintf(&b, " %s |", cell(Standing(standing), EventStart+EventKind(kind), step))
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\n## Who holds the address\n\nFor a session that begins, moves, or comes back.\n\n")
	b.WriteString("| the address is held by | the session | the record | counted as |\n|---|---|---|---|\n")
	for h, rule := range addressRules {
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` |\n", holdingTexts[h], granted(rule), recorded(rule), rule.verdict)
	}
	return b.String()
}

// impossible reports whether the event never finds the session in that standing.
func impossible(s Standing, kind EventKind) bool {
	switch s {
	case StandingBefore:
		return kind == EventStop
	case StandingLapsed:
		return kind == EventStart
	}
	return false
}

func cell(s Standing, kind EventKind, step Step) string {
	switch {
	case impossible(s, kind):
		return "–"
	case step == StepIgnore:
		return fmt.Sprintf("%s (`%s`)", stepTexts[step], ignored[s])
	}
	return stepTexts[step]
}

func granted(r addressRule) string {
	switch {
	case !r.grant:
		return "does not get it, and is ignored"
	case r.evict:
		return "gets it; the other session ends first (SUPERSEDED), and is remembered as ended"
	}
	return "gets it"
}

func recorded(r addressRule) string {
	switch {
	case !r.grant:
		return "stays as it is"
	case r.announce:
		return "is a new one"
	}
	return "is updated; NAT sessions stay"
}

// TestVerdictsAreExplained: whatever is counted stands on the page.
func TestVerdictsAreExplained(t *testing.T) {
	page := rulesDocument()
	for v := NotHere + 1; int(v) < len(verdictNames); v++ {
		if !strings.Contains(page, "`"+v.String()+"`") {
			t.Errorf("%v is not explained", v)
		}
	}
}
