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

var standingTexts = [relations]struct{ name, text string }{
	RelationUnknown: {"unknown", "Nothing is known of the session: it is new, or its end was so long ago that it is forgotten (24 h; 5 min where its client has more than a million that are remembered)."},
	RelationSame: {"online", "The session is online, and the event is about it. A Start of the same user at the same address is the known one sent again, " +
		"unless the NAS stamped it more than 5 s later or has restarted in between. A Stop or Interim is about the session that is online under its " +
		"identifier, whatever odd time it tells, as long as no earlier session is known that had the same identifier."},
	RelationEarlier: {"online, event is older", "The event is of an earlier session known to have had the same Acct-Session-Id: by its Acct-Session-Time it began nearer to that one's start, or it is that one's Start again. " +
		"Or it is of where this session was before: another address, and older than what was last heard. Or it is an older Start, or a Stop that was delayed by more than the session lasts."},
	RelationLater: {"begins anew", "The Acct-Session-Id is used again: a Start that the NAS stamped clearly later than the known one, that came after a restart of the NAS and the known one before, or that is of another user or address; " +
		"an Interim or Stop whose Acct-Session-Time says that its session began after the known one ended; or an Interim of another user whose session is the earlier one of two by its Acct-Session-Time, and goes on."},
	RelationEnded: {"ended", "The session is over, and remembered (a tombstone): after its Stop, a restart of its NAS, or when another session " +
		"took its address. The event is late, or sent again."},
	RelationLapsed: {"ended without a word about it", "Its record expired, was deleted by gRPC or in the database, or was ended by an Accounting-On; or the session went to another group or to an address of none; or another " +
		"session took its address, and this one had left that, or that one is gone again, or had come in doubtful order; or it was stopped, and its Acct-Session-Time goes on for a minute and more beyond that. The event is newer than that end: the NAS says that the session is online."},
	RelationBefore: {"began before its NAS restarted", "An Accounting-On or -Off of its NAS is newer than the start of the session, and than the event. In the same second the later arrival wins. " +
		"A Stop is taken all the same. Or nothing is known of the session, and the event is [more than 25 h old](#replays)."},
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

var holdingTexts = [owners]string{
	OwnerNone:      "nobody",
	OwnerSelf:      "the session itself",
	OwnerAdoptable: "a record that waits for its session: put by hand for this user, written back after the database lost it (but for a session that starts later), of the same session with other addresses, or of a service of this session that was heard of first",
	OwnerLink:      "another link of the same multilink (Acct-Multi-Session-Id, client and NAS), or the session of a service that counts",
	OwnerOlder:     "another session, which began no later (within a second the later arrival wins), or in doubtful order (see [set back](#a-clock-is-set-back))",
	OwnerNewer:     "another session, which began a second or more later",
	OwnerForeign:   "a session of [another RADIUS client](#two-clients-at-one-address), of another realm",
}

const rulesIntro = `# The effect of an accounting event

This page is written from the tables that run (internal/subscriber/rules.go), and a
test compares them. It has, for each state of a session, the effect of a Start, an
Interim-Update and a Stop.

A session is known by RADIUS client (or [realm](#one-nas-behind-several-clients)),
NAS (NAS-Identifier, else NAS address; ` + "`nas_identity`" + ` of the client) and
Acct-Session-Id. Port and Class are no part of it. User-Name and address tell sessions
apart [that share an identifier](#one-identifier-several-sessions).

Every event, also an ignored one, is answered once Redis has its changes: the NAS need
not send it again. Acct-Status-Types other than these three and
Accounting-On and -Off are answered and change nothing (` + "`no_record`" + ` in
[metrics.md](metrics.md)); a packet that lacks Acct-Status-Type or Acct-Session-Id is
not answered, unless its client has ` + "`acknowledge_incomplete`" + `.

The outcome of an event is counted in ` + "`sessiond_accounting_verdicts_total`" + `, once in
each group that it concerns.

| outcome | meaning | counted as |
|---|---|---|
| **begins** | The session is online. It gets the address if [its holder](#who-holds-the-address) lets go. The record of an older session under its identifier ends first (SUPERSEDED). | as told there; ` + "`took_over`" + ` where an older one ended; ` + "`noted`" + ` without an address |
| **goes on** | The record is refreshed: time to live, counters, event time. With another address than before the session moves, if the holder of that lets go: the old record ends (SUPERSEDED), a new one begins. | ` + "`refreshed`, `moved`" + ` |
| **ends** | The record is deleted (STOP), and with it the NAT sessions; of several links of a multilink only the last does that. The end is remembered for 24 h. | ` + "`stopped`; `unlinked`" + ` for a link before the last; ` + "`noted`" + ` where the record is gone already |
| end is noted | No record is touched. The end is remembered, so that a Start or Interim that comes late does not bring the session to life. | ` + "`noted`" + ` |
| **leaves** | The record in this group ends (SUPERSEDED): the session is at an address of another group, or of none, now. | ` + "`left`" + ` |
| ignored | Nothing changes. | the name in parentheses |
| nothing | The group does not know the session, and need not. | not counted |
| – | Cannot be. | |

## Clocks

Events come late, twice and out of order, and few NASes have a right clock. The time of an
event is the first of these that there is:

1. **Arrival is the bound.** No event happened after it came: over UDP to the kernel, however
   long it then waits to be read.
2. **Acct-Delay-Time** that was counted (1 s or more; the NAS or a relay counts it):
   the event happened that long before it came. It needs no clock.
3. **Event-Timestamp, by the learned clock of that NAS.** From the packets that come
   promptly sessiond learns how far the clock of each NAS is ahead of its own
   (` + "`sessionctl nas list`" + ` shows it), and reads the NAS's stamps by that. A clock that is
   8 h behind orders events as well as a right one. A stamp more than 48 h off says nothing.
4. Else the event happened when it came.

**Acct-Session-Time** needs no clock either: the session's start, which is known, and
the count of the NAS since give the time when an Interim or Stop was sent. A count that
would reach beyond the arrival is a miscount, and so is 0; it says nothing.

| compared | decided by |
|---|---|
| events of one NAS | the order in which they came, unless a counted delay or Acct-Session-Time says otherwise. Event-Timestamp does so for Starts at one address within 60 s, the time within which networks and repeated packets change the order, and for Interims |
| events of two NASes of one client, or realm | times as above |
| an event and a deletion (by hand, gRPC, expiry) | times as above |
| a Start and the Start that is known | the stamps of the NAS: equal stamps are the same Start. Without stamps a Start of the same user at the same address is the same one |

### A clock is off

*A NAS sends local time as UTC and is 8 h behind.* From its first stamp sessiond knows
the offset. Its record is deleted by hand; its next Interim is newer than that and
brings it back. A newcomer through it gets an address from a session of a NAS of the same
client with a right clock. A Stop that a relay kept for 3 h is 11 h behind, thus 3 h old.

### A clock is ahead before NTP

*A NAS boots 3 min ahead, sends Accounting-On, and sets its clock.* From the stamp of an
Accounting-On nothing is learned, and one that looks more than 60 s late counts as of its
arrival. The offset from before stays, and is doubtful: the next stamp is the new one,
unless it is more than 60 s behind. Then it takes two, as where a clock is set back, for
most clocks go on over a restart and a relay may keep packets. Every Start after it gets
service.

### A clock is set back

*NTP sets the clock back by 4 min, or summer time ends.* Each event of the NAS looks
4 min late until two of them, 10 s apart, agree on that; then the new offset holds. Until
then: a Stop ends its session (it is that of its identifier). A Start of another user at
an address that is held through the same NAS came later, and gets it (` + "`took_over`" + `). That
is doubtful, for a relay that kept a Start and tells no delay looks alike: if the session
that lost the address reports itself again, and the one that got it did not, it gets it
back. So the harm in doubt is a subscriber without NAT for one interim interval, and
never somebody else's ports.

### A clock is set forward

*The clock jumps ahead by an hour.* No event comes before it happened, so the larger
offset holds at once.

### A clock shows 1970

*The battery is flat.* Stamps say nothing; arrival and delay order the events.

### The count is wrong

*A Stop tells Acct-Session-Time 23311 of a session that began a second ago.* Identifier,
user, address and the order of arrival outweigh one odd field: the session ends.

### Histories that cannot be decided

| history | treatment | cost |
|---|---|---|
| the first packet ever of a NAS was kept for hours, and tells no delay | it counts as prompt; its stamp is shown as the start | the holder of its address is away until the Stop that follows, or until that record expires |
| a Start was kept for more than 60 s by a relay that tells no delay, and its address has gone to another session of the same NAS | it gets the address, in the order of arrival | the other session is away until its next Interim, which gets the address back |
| an Accounting-On was kept so, and its stamp is not that of the known one | it ends the sessions that began meanwhile | they are away until their next Interim |
| a Start from before an Accounting-On comes after it, and tells no delay | it counts as after | a record without a subscriber, until it expires or the address is given out |
| a Start without stamp and delay comes again within 5 min of the known one, and after its Stop | it is the same one | if it was a new one: away until the first Interim that tells Acct-Session-Time |
| a Start was kept, and the holder of its address, of another NAS, was heard of since | the holder keeps it | if the holder is a line that the other NAS has not missed yet: away until the first Interim |

## Replays

A packet may come again hours later, to the octet: from a proxy that is stuck, or from
an attacker who recorded it. Its Request Authenticator, which cannot be made without the
secret, is then the same.

- **A stamp** dates it. A Start or Interim of a session that nothing is known of, which is
  more than 25 h old by the clock of its NAS or a counted delay, begins none (` + "`outdated`" + `):
  the end of its session, which is remembered for 24 h, may be forgotten. So is one whose
  stamp is up to 30 days behind the known clock. A stamp that is further behind is rather of
  a clock that lost its time.
- **A Start without a stamp** is known again by its authenticator, for as long as its
  session is remembered (` + "`ended`" + `). Since a restart of its NAS it may be another one, of a NAS
  that begins its identifiers anew: it opens a session at a free address, and takes none from
  another session.
- **Without either**, an event of a session that has ended may be of another one under the
  same identifier. It takes no address from another session (` + "`held`" + `), unless its NAS has
  restarted since. An
  Interim whose Acct-Session-Time the session had too is of that one (` + "`ended`" + `).
- **Accounting-On and -Off**: the authenticators of the last eight of each NAS are kept for
  30 days.

The cost: a NAS without a clock whose Accounting-On is the same to the octet at every boot,
RADIUS identifier included, is not believed a second time; its old sessions end as their
addresses are given out, or expire. A replay of a Start without a
stamp whose session is forgotten (after 24 h) makes a record without a subscriber, until
that expires or the address is given out. Let NASes send Event-Timestamp.

## Accounting of services

Accounting of a service, queue, policer or host within a session, under an identifier
of its own, is answered and ignored (` + "`service_ignored`" + `): a service that stops does not end
its subscriber. It is known by the marks of vendors (Cisco, Juniper, Nokia), by attributes
that the client's ` + "`service_marks`" + ` names for others, or by an Acct-Multi-Session-Id that is
the Acct-Session-Id of the session that holds the address. With ` + "`services: count`" + ` of
the client a service keeps its session's NAT as a link of a multilink does: it lasts until
the session and its services have ended.

*A bandwidth boost is accounted beside the session, with the session's address.* Its
Start, Interims and Stop change nothing; the session's flows go on.

## One identifier, several sessions

Acct-Session-Id is not always unique: pppd's radius plugin gives the same one to all
sessions that begin in the same second. An event of another user at another address
than the session that is known under its identifier is of another session, which is
known by its address besides. Both go on, and each Stop ends its own.

## One NAS behind several clients

Two RADIUS proxies before one BNG are one client with several ` + "`prefixes`" + `, or several
clients of one ` + "`realm`" + `: their reports are of the same NASes, and a session or an
Accounting-On that is heard through either is the same.

*Nothing is configured, and the Start comes through one proxy, the Interim through the
other.* Where NAS, NAS address, Acct-Session-Id, User-Name and address are the same, the
session is. sessiond takes both names for one NAS from then on, and logs that. Each
client reports for that NAS, and for no other of the other client. So a client that knows all
this of one session of a NAS, or guesses it, ends all of that NAS. Where a realm is
configured no realm is inferred: a client without it, or of another one, reports for none of
its NASes. With ` + "`radius.infer_realms: false`" + ` no realm is inferred at all.

The inference is on by default, with a warning where a configuration has clients that it can
concern and does not say whether it is wanted. Nothing in the packets tells a second proxy from
a client that knows the session: both send the packets that the NAS would. To believe neither
harms every network with two proxies and no realm, at the first failover: an Interim is refused, a Stop
ends nothing, and the next subscriber at the address gets no NAT until the record expires. To
believe both harms a network with a hostile client among the configured ones. So the operator
has to say which of the two is there. To require several sessions that agree would not help: a
client that knows one session of a NAS knows more of them.

## Two clients at one address

A session takes an address over from another one only within a RADIUS client, or realm.
Only the client that reports a session knows whether it is gone: an event through any other
client changes neither the session's record nor the effect of the session's own next events,
whatever identifiers and times it has (` + "`foreign_holder`" + `). The holder is
gone

- by a Stop through its own client, or an Accounting-On or -Off of its NAS;
- when its record expires, is deleted, or is held by a guard (` + "`sessionctl removal list`" + `);
- when its client is no longer configured: no client could report its end. A client that was
  renamed goes on under its new name from the first event on that is recognised as one of
  an [earlier session](#one-nas-behind-several-clients); until then nothing protects
  its addresses. All daemons on one Redis need the same clients.

Then the next Interim of the session that was refused opens it.

*A subscriber with a fixed address moves from a BNG to one that is another client, and
the Stop of the first is lost, or comes later than the Start.* The Start is refused. The
subscriber is without NAT until the first Interim after the Stop, or after the first
session's record has expired (` + "`record_ttl`" + `; where that is 0, never, but for
` + "`sessionctl subscriber delete`" + `). Where subscribers move between BNGs, give these one
` + "`realm`" + `: the later session gets the address at once, as behind one client. The price is
that each of them is believed about the others' subscribers.

Records that were put by hand, and those that were written back from bindings alone, have
no client, and are protected against no client.

### Bounds of a client

` + "`inside`" + ` and ` + "`groups`" + ` of a client bound the addresses that it may report. An event about
another address of any group opens nothing, moves nothing and is not remembered
(` + "`foreign_address`" + `). A session that was online before its client was bound goes on, and
ends as usual. Addresses of no group are not translated, and may be told by every client.

` + "`max_subscribers`" + ` of a client is the number of subscribers that it may have online, with the
clients of its ` + "`realm`" + `; there may be some more while many begin at once. The Start, or first
Interim, of one more opens nothing and is not remembered (` + "`client_full`" + `): with its next
Interim after another has ended it is served. Online sessions go on, and end, as usual.

All of these are answered, counted by client in ` + "`sessiond_accounting_refused_total`" + ` and by NAS in
` + "`sessionctl nas list`" + `, and logged.

## Restart of a NAS

Accounting-On and Accounting-Off end all sessions of that client's NAS that began
before, whatever their state (` + "`restarted`" + `). The answer waits for a mark in the
database only; the sessions are ended behind it. An On or Off within 2 s of the known one, older,
with the same Event-Timestamp, or [to the octet](#replays) one of the last eight is the same
one sent again (` + "`restart_repeated`" + `). One that names
a NAS whose sessions only another client reports is ignored, logged and counted
(` + "`foreign_nas`" + `). So is one of a NAS name that several NASes have (` + "`nas_conflict`" + `).

Some NASes send Accounting-On while their subscribers stay online: when the first
accounting server is configured, or every few minutes while none answers. So an Interim
that is newer than the On brings its session back, with the same outside address and
ports. ` + "`restarts`" + ` of the client sets the effect of an On or Off:

| ` + "`restarts`" + ` | effect | for |
|---|---|---|
| ` + "`believe`" + ` | the sessions end at once; those that go on are back with their next Interim | NASes that mean it (RFC 2866 section 5.1) |
| ` + "`confirm`" + ` | the sessions go on, marked (` + "`sessionctl removal list`" + `); the next Interim clears the mark; without one they end when their record expires, or when a person confirms | NASes that may not |
| ` + "`ignore`" + ` | nothing (` + "`restart_ignored`" + `); dead sessions expire | NASes that never do |
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
		for relation, r := range rows {
			fmt.Fprintf(&b, "| %s |", standingTexts[relation].name)
			for kind, step := range r {
				fmt.Fprintf(&b, " %s |", cell(Relation(relation), EventStart+EventKind(kind), step))
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
func impossible(s Relation, kind EventKind) bool {
	switch s {
	case RelationBefore:
		return kind == EventStop
	case RelationLapsed:
		return kind == EventStart
	}
	return false
}

func cell(s Relation, kind EventKind, step Step) string {
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
