package radiusacct_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
)

// foretold reports whether a pair of labels is in Outcomes. The observer of every test
// checks all its counts.
func foretold(client, kind, result string) bool {
	pair := radiusacct.Outcome{Kind: kind, Result: result}
	if client == "" {
		return slices.Contains(radiusacct.StrangerOutcomes(), pair)
	}
	return slices.Contains(radiusacct.Outcomes(), pair)
}

func closingForetold(cause string) bool { return slices.Contains(radsec.ClosingCauses(), cause) }

func refusalForetold(client, cause string) bool {
	if client != "" {
		return cause == radsec.RefusedLimit
	}
	return slices.Contains(radsec.RefusalCauses(), cause)
}

// TestKernelDropsAreCounted: datagrams that the kernel drops unread are counted, and the
// count stays once the socket is closed.
func TestKernelDropsAreCounted(t *testing.T) {
	s, err := radiusacct.New(radiusacct.Options{Listen: []string{"127.0.0.1:0"}, Recorder: &recorder{}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Losses(); got != (radiusacct.Losses{}) {
		t.Errorf("lost at the start: %+v", got)
	}
	sender := newNAS(t, "127.0.0.1", s.Addrs()[0])
	large := make([]byte, 60_000) // there is no reader: the socket is soon full
	deadline := time.Now().Add(patience)
	for s.Losses().Datagrams == 0 {
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted as dropped")
		}
		sender.send(large)
	}
	for range 10 {
		sender.send(large)
	}
	lost := s.Losses()
	if lost.Datagrams < 10 || lost.Replies != 0 || lost.Accepts != 0 {
		t.Errorf("lost %+v, want 10 datagrams or more and nothing else", lost)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.Losses(); got != lost {
		t.Errorf("lost %+v once it is closed, %+v before", got, lost)
	}
}
