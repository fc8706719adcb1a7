package subscriberdb

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// watch is one key that a decision rests on, with what it was decided on.
type watch struct {
	kind   string // "s" string, "v" version of a record: as the script knows them
	key    string
	want   string
	absorb func(s *step, state any)
}

// watches lists what the step's decision rests on. elsewhere is the address
// where the session is open, if it is another one.
func (s *step) watches(elsewhere netip.Addr) []watch {
	list := make([]watch, 0, 4)
	if s.id != (subscriber.SessionID{}) {
		list = append(list, watch{"s", sessionKey(s.group.Name, s.id), s.session, absorbSession})
	}
	if s.usesRestart {
		list = append(list, watch{"s", restartKey(s.group.Name, s.id), s.restart, absorbRestart})
	}
	if s.inside.IsValid() {
		list = append(list, watch{"v", recordKey(s.group.Name, s.inside), s.version(s.holder), absorbHolder})
	}
	if elsewhere.IsValid() {
		list = append(list, watch{"v", recordKey(s.group.Name, elsewhere), s.version(s.current), absorbCurrent(elsewhere)})
	}
	return list
}

func (s *step) version(r *subscriber.Record) string {
	switch {
	case s.blind:
		return anyVersion
	case r == nil:
		return ""
	}
	return r.Version
}

func absorbSession(s *step, state any) { s.session, _ = state.(string) }

func absorbRestart(s *step, state any) { s.restart, _ = state.(string) }

func absorbHolder(s *step, state any) {
	s.holder = readRecord(subscriber.Key{Group: s.group.Name, Inside: s.inside}, state)
}

func absorbCurrent(inside netip.Addr) func(*step, any) {
	return func(s *step, state any) {
		s.current = readRecord(subscriber.Key{Group: s.group.Name, Inside: inside}, state)
	}
}

// readRecord reads a record from the script's reply; nil for none.
func readRecord(key subscriber.Key, state any) *subscriber.Record {
	fields := pairs(state)
	if len(fields) == 0 {
		return nil
	}
	r := parseRecord(key, fields)
	return &r
}
