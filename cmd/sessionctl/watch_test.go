package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
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
	go func() { ended <- ctl(t, server.Address, "", "watch", "--reconnect=false") }()
	testenv.Eventually(t, "a watch", b.Watched)
	server.Stop(t)
	if r := <-ended; r.code != exitUnreachable || !strings.Contains(r.stderr, "stopping") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

// running is a watch that goes on while a test replaces the daemon.
type running struct {
	stdout, stderr *lineBuffer
	interrupt      func() int
}

// lineBuffer takes output, and lets a test wait for a text in it.
type lineBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lineBuffer) has(text string, times int) func() bool {
	return func() bool { return strings.Count(b.String(), text) == times }
}

func (b *lineBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func background(t *testing.T, arguments ...string) running {
	t.Helper()
	r := running{stdout: &lineBuffer{}, stderr: &lineBuffer{}}
	ctx, interrupt := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- newApp(strings.NewReader(""), r.stdout, r.stderr).run(ctx, append([]string{"watch"}, arguments...))
	}()
	r.interrupt = func() int { interrupt(); return <-code }
	return r
}

// TestWatchSurvivesRestart: a watch goes on over a daemon that stops, repeats and loses nothing
// while the daemon's run has the events, and says where another run does not have them.
func TestWatchSurvivesRestart(t *testing.T) {
	t.Parallel()
	socket := "unix:" + filepath.Join(t.TempDir(), "grpc.sock")
	at := func(o *control.Options) { o.Listen = socket }
	b := controltest.Scene()
	tell := func(user string) {
		e := inspect.Event{At: controltest.Now, Kind: inspect.EventCreated, Subscriber: b.Online[0]}
		e.Subscriber.UserName = user
		b.Publish(e)
	}
	serve := func() *controltest.Server { return controltest.Serve(t, b, at) }
	server := serve()
	w, table := background(t, "--addr", socket, "-o", "json", "--list"), background(t, "--addr", socket)
	testenv.Eventually(t, "the list", w.stdout.has(`"listed":true`, 1))
	testenv.Eventually(t, "two watches", func() bool { return b.Watchers() == 2 })
	tell("before")
	testenv.Eventually(t, "the first event", w.stdout.has(`"user_name":"before"`, 1))
	server.Stop(t)
	testenv.Eventually(t, "to be told", w.stderr.has("connecting again", 1))
	server = serve()
	testenv.Eventually(t, "the watches to be back", func() bool { return b.Watchers() == 2 })
	tell("between")
	for _, out := range []*lineBuffer{w.stdout, table.stdout} {
		testenv.Eventually(t, "the second event", out.has("between", 1))
	}

	server.Stop(t)
	b.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: 2, Octets: 64 << 10})
	serve()
	testenv.Eventually(t, "the list after the restart", w.stdout.has(`"listed":true`, 2))
	testenv.Eventually(t, "the watches to be back", func() bool { return b.Watchers() == 2 })
	tell("after")
	for _, out := range []*lineBuffer{w.stdout, table.stdout} {
		testenv.Eventually(t, "the last event", out.has("after", 1))
	}
	if code := w.interrupt(); code != exitDone {
		t.Errorf("exit %d: %s", code, w.stderr.String())
	}
	table.interrupt()
	out := w.stdout.String()
	for text, times := range map[string]int{
		`"kind":"EVENT_KIND_LISTED"`: 4, `"cause":"GAP_CAUSE_RESTARTED"`: 1, `"user_name":"before"`: 1, `"kind":"EVENT_KIND_CREATED"`: 3,
	} {
		if got := strings.Count(out, text); got != times {
			t.Errorf("%s %d times, want %d, in\n%s", text, got, times, out)
		}
	}
	if told := table.stderr.String(); !strings.Contains(told, "the daemon was started anew; `sessionctl subscriber list` shows who is online") || strings.Count(told, "connected again") != 2 {
		t.Errorf("the table's watch said %s", told)
	}
}

// TestWatchResumes: --resume goes on behind an event, and a text that is no token is a mistake.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	server := controltest.Serve(t, b, nil)
	first := background(t, "--addr", server.Address, "-o", "json")
	testenv.Eventually(t, "a watch", b.Watched)
	for _, s := range b.Online {
		b.Publish(inspect.Event{At: controltest.Now, Kind: inspect.EventUpdated, Subscriber: s})
	}
	testenv.Eventually(t, "two events", first.stdout.has("\n", 2))
	var e struct {
		ResumeToken string `json:"resume_token"`
	}
	if err := json.Unmarshal([]byte(strings.SplitN(first.stdout.String(), "\n", 2)[0]), &e); err != nil || e.ResumeToken == "" {
		t.Fatalf("%v in %s", err, first.stdout.String())
	}
	again := background(t, "--addr", server.Address, "-o", "json", "--resume", e.ResumeToken)
	testenv.Eventually(t, "the second event", again.stdout.has("\n", 1))
	first.interrupt()
	again.interrupt()
	if _, second, _ := strings.Cut(first.stdout.String(), "\n"); again.stdout.String() != second {
		t.Errorf("behind the first event came %s, want %s", again.stdout.String(), second)
	}
	if r := ctl(t, server.Address, "", "watch", "--resume", "nonsense"); r.code != exitUsage || !strings.Contains(r.stderr, "resume_token") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

// TestWatchCSVKeepsItsColumns: in CSV all records are events, with one header; gaps are told on
// stderr.
func TestWatchCSVKeepsItsColumns(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	server := controltest.Serve(t, b, nil)
	w := background(t, "--addr", server.Address, "-o", "csv", "--list")
	testenv.Eventually(t, "the list", w.stdout.has("EVENT_KIND_LISTED", len(b.Online)))
	testenv.Eventually(t, "a watch", b.Watched)
	b.Lose(inspect.Gap{Cause: inspect.GapFeed, Group: "default", ListAgain: true}, inspect.FeedPositions{})
	testenv.Eventually(t, "the list again", w.stdout.has("EVENT_KIND_LISTED", 2*len(b.Online)))
	b.Publish(inspect.Event{At: controltest.Now, Kind: inspect.EventUpdated, Subscriber: b.Online[0]})
	testenv.Eventually(t, "the event", w.stdout.has("EVENT_KIND_UPDATED", 1))
	if code := w.interrupt(); code != exitDone {
		t.Errorf("exit %d: %s", code, w.stderr.String())
	}
	records, err := csv.NewReader(strings.NewReader(w.stdout.String())).ReadAll() // refuses other columns
	if err != nil || len(records) != 2*len(b.Online)+2 {
		t.Errorf("%d records, %v, in\n%s", len(records), err, w.stdout.String())
	}
	if told := w.stderr.String(); !strings.Contains(told, "of group default: Redis lost them") {
		t.Errorf("it told %q", told)
	}
}

// TestWatchShowsProgress: while those online are listed, a terminal shows how many of how many have
// come; it ends with the list, and with the connection.
func TestWatchShowsProgress(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	var shown lockedBuffer
	now := time.Unix(0, 0)
	a := sceneApp("", &stdout, io.Discard)
	a.progress = &progressLine{to: &shown, now: func() time.Time { return now }}
	w := follower{subscriberCommands: subscriberCommands{a}}
	w.out = newList(&w.printer, []string{"TIME"}, func(*pb.SubscriberEvent) []string { return []string{"x"} })
	show := func(res *pb.WatchSubscribersResponse, want string) {
		t.Helper()
		if err := w.show(res); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * time.Second)
		before := shown.String()
		a.progress.show()
		if got := strings.TrimPrefix(shown.String(), before); got != want {
			t.Errorf("%v shows %q, want %q", res, got, want)
		}
	}
	progress := func(listed uint32, total *uint32) *pb.WatchSubscribersResponse {
		return &pb.WatchSubscribersResponse{ListProgress: &pb.WatchListProgress{Listed: listed, Total: total}}
	}
	show(progress(256, proto.Uint32(1000)), "\r256 of 1000 rows, 2s\x1b[K")
	show(&pb.WatchSubscribersResponse{Event: &pb.SubscriberEvent{Kind: pb.EventKind_EVENT_KIND_LISTED}}, "\r257 of 1000 rows, 4s\x1b[K")
	show(progress(512, nil), "\r512 rows, 6s\x1b[K")
	w.showProgress(&pb.WatchSubscribersResponse{Listed: true}) // as at the end of a stream
	show(progress(512, proto.Uint32(1000)), "\r512 of 1000 rows, 8s\x1b[K")
	end := progress(1000, proto.Uint32(1000))
	end.Listed = true
	show(end, "")
	show(&pb.WatchSubscribersResponse{Event: &pb.SubscriberEvent{Kind: pb.EventKind_EVENT_KIND_CUT}}, "")
}
