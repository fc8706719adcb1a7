package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// follow runs a watch and returns its first lines, then interrupts it.
func follow(t *testing.T, b *controltest.Backend, lines int, publish func(), arguments ...string) ([]string, int) {
	t.Helper()
	server := controltest.Serve(t, b, nil)
	read, write := io.Pipe()
	var stderr bytes.Buffer
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	code := make(chan int, 1)
	go func() {
		a := newApp(strings.NewReader(""), write, &stderr)
		a.zone = time.UTC
		defer write.Close()
		code <- a.run(ctx, append([]string{"watch", "--addr", server.Address}, arguments...))
	}()
	testenv.Eventually(t, "a watch", b.Watched)
	publish()
	var got []string
	var rest string
	buffer := make([]byte, 4096)
	for len(got) < lines {
		n, err := read.Read(buffer)
		if err != nil {
			t.Fatalf("the watch ended after %q: %v: %s", got, err, stderr.String())
		}
		parts := strings.Split(rest+string(buffer[:n]), "\n")
		got, rest = append(got, parts[:len(parts)-1]...), parts[len(parts)-1]
	}
	interrupt()
	return got, <-code
}

func TestWatchTable(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	lines, code := follow(t, b, 4, func() {
		b.Publish(inspect.Event{At: controltest.Now, Kind: inspect.EventPending, Subscriber: b.Online[1]})
		b.Publish(inspect.Event{
			At: controltest.Now, Kind: inspect.EventReaped, End: subscriber.End{Reason: subscriber.ReasonNASRestart},
			Subscriber: b.Online[0], SessionsEnded: 2,
		})
		b.Publish(inspect.Event{
			At: controltest.Now, Kind: inspect.EventLimitReached, Subscriber: b.Online[0], Limits: []nat.Limit{nat.LimitSessions, nat.LimitUDPPorts},
		})
	})
	golden(t, "watch", strings.Join(lines, "\n")+"\n", result{code: code})
}

func TestWatchJSON(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	lines, code := follow(t, b, 1, func() {
		b.Publish(inspect.Event{At: controltest.Now, Kind: inspect.EventCreated, Subscriber: b.Online[1]})
		b.Publish(inspect.Event{At: controltest.Now, Kind: inspect.EventDeleted, End: subscriber.End{Reason: subscriber.ReasonAdmin}, Subscriber: b.Online[0]})
	}, "-o", "json", "--user", "alice")
	golden(t, "watch_json", strings.Join(lines, "\n")+"\n", result{code: code})
}

func TestWatchEndsWithTheDaemon(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	server := controltest.Serve(t, b, nil)
	ended := make(chan result, 1)
	go func() { ended <- ctl(t, server.Address, "", "watch") }()
	testenv.Eventually(t, "a watch", b.Watched)
	server.Stop(t)
	if r := <-ended; r.code != exitUnreachable || !strings.Contains(r.stderr, "stopping") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}
