package removals

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// notifySetting is the setting of Redis that selects the keyspace notifications.
const notifySetting = "notify-keyspace-events"

// neededFlags are the flags in it that the watcher needs: keyevent channels for generic
// commands, expiry and eviction.
const neededFlags = "Egxe"

// mendedPause is the shortest time between two log lines about a setting that another
// program clears repeatedly.
const mendedPause = time.Minute

// serverNotifications turns on the notifications of one server, and keeps them on.
type serverNotifications struct {
	watcher *Watcher
	server  redis.UniversalClient
	round   int // number of the attempt to watch all servers

	on      bool // the server sends the notifications
	due     time.Time
	told    time.Time // time of the last log line about cleared notifications
	silents int       // cleared notifications since then without a log line
}

// checkIfDue checks at intervals whether the server still notifies. It reports whether
// notifications were off for a while and are on again.
func (n *serverNotifications) checkIfDue(ctx context.Context) bool {
	if time.Now().Before(n.due) {
		return false
	}
	before := n.on
	switch mended := n.check(ctx); {
	case !n.on:
		return false
	case !mended, !before:
		return !before
	}
	if time.Since(n.told) < mendedPause {
		n.silents++
		return true
	}
	n.watcher.o.Logger.Warn("notifications of removed records were turned off by another program, turned on again",
		"setting", notifySetting, "needed", neededFlags, "suppressed", n.silents)
	n.told, n.silents = time.Now(), 0
	return true
}

// check turns on the needed notifications and keeps the other flags. It reports whether any
// was off. A server that does not answer has not refused: the next command to it reports
// the failure.
func (n *serverNotifications) check(ctx context.Context) (mended bool) {
	bounded, cancel := context.WithTimeout(ctx, settingPause) // a server that hangs must not delay the others
	defer cancel()
	mended, err := enableNotifications(bounded, n.server)
	n.due = time.Now().Add(settingPause)
	if err != nil && !redisconn.IsAnswer(err) {
		return false
	}
	n.on = err == nil
	if !n.watcher.notices.note(redisconn.Address(n.server), n.round, n.on) {
		return mended
	}
	if n.on {
		n.watcher.o.Logger.Info("redis tells of removed records again")
	} else {
		n.watcher.o.Logger.Warn("redis does not let us turn on notifications: removed records are looked for instead",
			"setting", notifySetting, "needed", neededFlags, "error", err, "alarm", "sessiond_redis_notifications")
	}
	return mended
}

// enableNotifications turns on missing flags, and reports whether any was missing.
func enableNotifications(ctx context.Context, server redis.UniversalClient) (missing bool, err error) {
	values, err := server.ConfigGet(ctx, notifySetting).Result()
	if err != nil {
		return false, err
	}
	merged := mergeFlags(values[notifySetting], neededFlags)
	if merged == values[notifySetting] {
		return false, nil
	}
	return true, server.ConfigSet(ctx, notifySetting, merged).Err()
}

// MissingFlags returns the flags that a value of notify-keyspace-events lacks; "" for none.
func MissingFlags(setting string) string {
	return strings.TrimPrefix(mergeFlags(setting, neededFlags), setting)
}

// mergeFlags adds flags; "A" is short for all flags but a few.
func mergeFlags(have, need string) string {
	for _, f := range need {
		if strings.ContainsRune(have, f) || f != 'E' && strings.ContainsRune(have, 'A') {
			continue
		}
		have += string(f)
	}
	return have
}

// serverNotices holds, for each server, whether it notifies.
type serverNotices struct {
	mu      sync.Mutex
	round   int
	active  bool // this round has, or had, a subscription
	servers map[string]serverNotice
}

type serverNotice struct {
	round int
	on    bool
}

// begin starts another round of watching.
func (s *serverNotices) begin() (round int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round++
	s.active = false
	return s.round
}

// watching notes that the round has a subscription.
func (s *serverNotices) watching(round int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = s.active || round == s.round
}

// watched reports whether the round had a subscription.
func (s *serverNotices) watched(round int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active && round == s.round
}

// note stores whether a server notifies, and reports whether that is new. It is not new
// that a server notifies that was not known.
func (s *serverNotices) note(address string, round int, on bool) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.servers[address]
	if s.servers == nil {
		s.servers = map[string]serverNotice{}
	}
	s.servers[address] = serverNotice{round, on}
	return on != (before.on || !known)
}

// Notified reports whether, as far as is known, all servers send notifications about
// removed keys. If one does not, WatchRemovals scans for removed and expired records.
func (w *Watcher) Notified() bool {
	s := &w.notices
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.servers {
		if n.round == s.round && !n.on {
			return false
		}
	}
	return true
}
