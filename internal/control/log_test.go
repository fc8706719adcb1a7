package control_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// sharedBuffer collects a log for several goroutines.
type sharedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sharedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sharedBuffer) lines(with string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for line := range strings.Lines(s.b.String()) {
		if strings.Contains(line, with) {
			n++
		}
	}
	return n
}

// TestRefusedCallersFillNoLog: lines about refused changes and streams, which
// any caller can cause, are throttled. Each change that is made has its own
// line, of bounded length.
func TestRefusedCallersFillNoLog(t *testing.T) {
	t.Parallel()
	var log sharedBuffer
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.LocalRole = access.Viewer
		o.Limits = control.Limits{StreamsPerPeer: 1}
		o.Socket = t.TempDir() + "/s"
	})
	conn := dial(t, server.Address)
	if _, err := watch(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	client := pb.NewSubscriberServiceClient(conn)
	for range 50 {
		if _, err := client.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{Nas: "n"}); err == nil {
			t.Fatal("a change was let through")
		}
		if _, err := watch(t.Context(), conn); err == nil {
			t.Fatal("a stream was let through")
		}
	}
	if changes, streams := log.lines("DeleteSubscribers"), log.lines("stream refused"); changes != 1 || streams != 1 {
		t.Errorf("%d lines of changes that were refused, %d of streams", changes, streams)
	}
	trusted := pb.NewSubscriberServiceClient(dial(t, "unix:"+server.Addrs()[1].String()))
	for range 2 {
		_, err := trusted.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{Nas: "n", UserName: strings.Repeat("%41", 250), Group: strings.Repeat("g", 8000)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := log.lines("code=OK"); n != 2 {
		t.Errorf("%d lines of two changes that were made", n)
	}
	if n := log.lines(strings.Repeat("g", 3000)); n != 0 {
		t.Error("a long request is logged as a whole")
	}
}
