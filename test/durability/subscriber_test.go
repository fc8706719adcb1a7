package durability

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

// A subscriber as its BNG knows it. Sessions are named by their Acct-Session-Id; "" is
// offline.
type subscriber struct {
	inside netip.Addr

	mu      sync.Mutex
	online  string    // by the last acknowledged event
	since   time.Time // of that session, or of the one that would begin
	would   string    // online after the unacknowledged event
	doubt   bool      // there is an unacknowledged event
	busy    bool      // and it is still being sent
	counter int       // of sessions
}

// next begins an event: a Start of a new session, or an Interim or the Stop of the online
// one. It returns false while that session is unknown: an event that was given up may still
// be in sessiond's socket, and take effect after a later one. The next kill resolves that.
func (s *subscriber) next(choice int, nas string) (acctclient.Request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubt {
		return acctclient.Request{}, false
	}
	s.doubt, s.busy, s.would = true, true, s.online
	now := time.Now()
	r := acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_InterimUpdate, SessionID: s.online,
		UserName: "user-" + s.inside.String(), FramedAddress: s.inside, NASIdentifier: nas,
		EventTime: now, InputOctets: uint64(s.counter),
	}
	switch {
	case s.online == "" || choice == 0: // without a Stop: a takeover
		s.counter++
		s.since = now
		s.would = fmt.Sprintf("%s/%d", s.inside, s.counter)
		r.Status, r.SessionID = rfc2866.AcctStatusType_Value_Start, s.would
	case choice < 5:
		s.would = ""
		r.Status = rfc2866.AcctStatusType_Value_Stop
	}
	r.SessionTime = now.Sub(s.since)
	return r, true
}

// settle ends the event: acknowledged, or given up.
func (s *subscriber) settle(acknowledged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if acknowledged {
		s.online, s.doubt = s.would, false
	}
}

// compare compares the record's session with the acknowledged one. With sessiond dead it
// resolves whether an event that was given up took effect.
func (s *subscriber) compare(record string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if record != s.online && (!s.doubt || record != s.would) {
		return fmt.Errorf("%v: acknowledged: %q online; unanswered event: %t, to make it %q; in Redis: %q",
			s.inside, s.online, s.doubt, s.would, record)
	}
	if s.doubt && !s.busy {
		s.online, s.doubt = record, false
	}
	return nil
}
