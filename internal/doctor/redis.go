package doctor

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

var redisChecks = []Check{
	{"redis", "whether each server of the database answers, and takes writes", eachServer(checkServer)},
	{"redis-version", "its version", eachServer(checkVersion)},
	{"redis-persistence", "appendonly, appendfsync and save", eachServer(checkPersistence)},
	{"redis-eviction", "maxmemory-policy, and memory in use against maxmemory", eachServer(checkEviction)},
	{"redis-notifications", "notify-keyspace-events", eachServer(checkNotifications)},
	{"redis-rights", "the rights (ACL) of its user", eachServer(checkRights)},
	{"redis-latency", "the time of a round trip", eachServer(checkLatency)},
	{"redis-clock", "its clock, against that of this machine", eachServer(checkRedisClock)},
}

// eachServer returns a check of each server. Those but the first one ask nothing of a server that
// does not answer: its facts are empty.
func eachServer(check func(*Redis) []Finding) func(*Facts) []Finding {
	return func(f *Facts) (found []Finding) {
		for i := range f.Redis {
			found = append(found, check(&f.Redis[i])...)
		}
		return found
	}
}

func (r *Redis) answers() bool { return r.Err == "" }

// setting returns a finding whose remedy is a setting of the server.
func (r *Redis) setting(s Severity, found, why, setting, value string) Finding {
	command := fmt.Sprintf("%s CONFIG SET %s %s", r.CLI, setting, Quote(value))
	note := "for its next start, write " + setting + " " + value + " into its configuration"
	if r.ConfigFile != "" {
		command += " && " + r.CLI + " CONFIG REWRITE"
		note = "CONFIG REWRITE writes it into " + r.ConfigFile
	}
	if !r.Configurable {
		note = "as a user of Redis that may CONFIG SET; " + note
	}
	return Finding{Severity: s, Found: "Redis at " + r.Address + ": " + found, Why: why, Command: command, Note: note}
}

func checkServer(r *Redis) []Finding {
	switch {
	case !r.answers():
		return []Finding{{
			Severity: Must, Found: "Redis at " + r.Address + " does not answer: " + r.Err,
			Why:  "no accounting is recorded or answered, and a sessiond that starts waits",
			Note: "start Redis, or correct redis.url",
		}}
	case r.Replica:
		return []Finding{{
			Severity: Must, Found: "Redis at " + r.Address + " is a replica, which takes no writes", Why: "no accounting is recorded or answered",
			Note: "let redis.url lead to the master, or use the mode sentinel",
		}}
	}
	return nil
}

// oldestMajor is the oldest version that sessiond is tested with.
const oldestMajor = 7

func checkVersion(r *Redis) []Finding {
	text, _, _ := strings.Cut(r.Version, ".")
	major, err := strconv.Atoi(text)
	if err != nil || major >= oldestMajor {
		return nil
	}
	return []Finding{{
		Severity: Must, Found: "Redis at " + r.Address + " is of version " + r.Version,
		Why: fmt.Sprintf("sessiond needs Redis %d", oldestMajor), Note: "install a newer one: Debian 12 has 7.0",
	}}
}

func checkPersistence(r *Redis) []Finding {
	switch {
	case !r.answers() || r.Version == "":
		return nil
	case !r.AppendOnly && !r.Snapshots:
		return []Finding{r.setting(Must, "nothing is kept on disk",
			"with a restart of Redis all records and holds are lost", "appendonly", "yes")}
	case !r.AppendOnly:
		return []Finding{r.setting(Must, "only snapshots are kept on disk",
			"with a crash of Redis the last minutes are lost, and what was answered to BNGs in them", "appendonly", "yes")}
	case r.Fsync == "no":
		return []Finding{r.setting(Should, "appendfsync is no",
			"with a loss of power the last half minute is lost, and what was answered to BNGs in it; with everysec two seconds, with always nothing", "appendfsync", "everysec")}
	}
	return nil
}

func checkEviction(r *Redis) (found []Finding) {
	const wanted = "noeviction"
	if r.Policy != "" && r.Policy != wanted {
		found = append(found, r.setting(Must, "maxmemory-policy is "+r.Policy,
			"a Redis that is full throws records away, which ends subscribers that are online", "maxmemory-policy", wanted))
	}
	if r.MaxMemory > 0 && float64(r.Memory) >= fullShare*float64(r.MaxMemory) {
		finding := r.setting(Must, fmt.Sprintf("%d of %d octets (maxmemory) are in use", r.Memory, r.MaxMemory),
			"a full Redis records no new subscriber", "maxmemory", strconv.FormatUint(2*r.Memory, 10))
		finding.Note = "where the machine has that memory, and as much again for a rewrite of the append-only file; " + finding.Note
		found = append(found, finding)
	}
	return found
}

// checkNotifications has a finding only where sessiond may not turn them on itself.
func checkNotifications(r *Redis) []Finding {
	const why = "records that others remove, or that expire, are found by walks over all online addresses, which cost Redis time"
	switch {
	case !r.answers() || r.refuses(): // the rights come first
		return nil
	case !r.EventsKnown:
		return []Finding{{
			Severity: Should, Found: "Redis at " + r.Address + ": the user " + r.user() + " may not read notify-keyspace-events (CONFIG GET)", Why: why,
			Command: r.CLI + " ACL SETUSER " + Quote(r.user()) + " '+config|get' '+config|set'", Note: administrator,
		}}
	case r.EventsLacking == "" || r.Configurable:
		return nil
	}
	return []Finding{r.setting(Should, "notify-keyspace-events lacks "+r.EventsLacking, why, "notify-keyspace-events", r.Events+r.EventsLacking)}
}

// administrator is the note of a command that changes the rights of a user.
const administrator = "as a user of Redis that may ACL SETUSER; write it into its aclfile or configuration, too"

func (r *Redis) user() string { return cmp.Or(r.User, "default") }

// refuses reports whether the user lacks a right.
func (r *Redis) refuses() bool { return len(r.Refused)+len(r.RefusedKeys) > 0 || r.RefusedEvents }

// checkRights names the least rules that are to be added: those of the user may be of other
// programs, too.
func checkRights(r *Redis) []Finding {
	if !r.refuses() {
		return nil
	}
	var lacks, rules []string
	if len(r.Refused) > 0 {
		lacks = append(lacks, "the commands "+strings.Join(r.Refused, ", "))
		for _, command := range r.Refused {
			rules = append(rules, Quote("+"+command))
		}
	}
	if len(r.RefusedKeys) > 0 {
		lacks = append(lacks, "keys such as "+r.RefusedKeys[0])
		rules = append(rules, Quote("~sessiond:*"), Quote("~{sessiond:settings}:*"))
	}
	if r.RefusedEvents {
		lacks = append(lacks, "the channels of keyspace events")
		rules = append(rules, Quote("&__keyevent@*"))
	}
	return []Finding{{
		Severity: Must, Found: "Redis at " + r.Address + ": the user " + r.user() + " may not use " + strings.Join(lacks, ", nor "),
		Why:     "what sessiond does by these fails: accounting is not recorded, or changes are not noticed",
		Command: r.CLI + " ACL SETUSER " + Quote(r.user()) + " " + strings.Join(rules, " "),
		Note:    administrator,
	}}
}

// slowAnswer is a round trip that a Redis in the same site does not need.
const slowAnswer = 5 * time.Millisecond

func checkLatency(r *Redis) []Finding {
	if r.Latency <= slowAnswer {
		return nil
	}
	return []Finding{{
		Severity: Should, Found: fmt.Sprintf("Redis at %s: a round trip takes %v", r.Address, r.Latency.Round(100*time.Microsecond)),
		Why:  "each Accounting-Response waits for one or two",
		Note: "look for a slow disk (redis-cli --latency-history, LATENCY DOCTOR), a busy processor, or a long way; give Redis a place near sessiond",
	}}
}

// clockBound is the difference of clocks that shows in the times of records.
const clockBound = time.Second

func checkRedisClock(r *Redis) []Finding {
	if r.Ahead.Abs() <= clockBound {
		return nil
	}
	than := "ahead of"
	if r.Ahead < 0 {
		than = "behind"
	}
	return []Finding{{
		Severity: Should, Found: fmt.Sprintf("the clock of Redis at %s is %v %s that of this machine", r.Address, r.Ahead.Abs().Round(time.Millisecond), than),
		Why:     "times of the feed and of expiry are not those of receipts and the log",
		Command: "timedatectl set-ntp true", Note: "on the machine whose clock is wrong",
	}}
}
