package natlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
)

// fakeLog is the log of one group: events from a first one on, and the blocks in service.
type fakeLog struct {
	epoch   string
	first   int
	events  []nat.Event
	live    []nat.Event
	partial bool  // the log is not whole
	failure error // of all calls
	telling error // of TellLogPosition
	joined  map[string]bindings.LogPosition
}

func (l *fakeLog) place(n int) bindings.LogPosition {
	return bindings.LogPosition{Epoch: l.epoch, Entry: strconv.Itoa(n), Events: uint64(n)}
}

func (l *fakeLog) TellLogPosition(_ context.Context, _, reader string, p bindings.LogPosition) error {
	if err := cmp.Or(l.failure, l.telling); err != nil {
		return err
	}
	l.joined[reader] = p
	return nil
}

func (l *fakeLog) NATLogEnd(context.Context, string) (bindings.LogState, error) {
	return bindings.LogState{LogPosition: l.place(l.first + len(l.events)), Whole: !l.partial}, l.failure
}

func (l *fakeLog) NATLog(_ context.Context, _ string, after bindings.LogPosition, most int, _ time.Duration) ([]nat.Event, bindings.LogPosition, error) {
	from := int(after.Events) - l.first
	switch {
	case l.failure != nil:
		return nil, after, l.failure
	case after.Epoch != l.epoch || from < 0 || from > len(l.events):
		return nil, after, bindings.ErrLogGap
	}
	to := min(len(l.events), from+most)
	return l.events[from:to], l.place(l.first + to), nil
}

func (l *fakeLog) NATLive(_ context.Context, _ string, yield func([]nat.Event) error) (bindings.LogPosition, error) {
	if l.failure != nil {
		return bindings.LogPosition{}, l.failure
	}
	for i := range l.live {
		if err := yield([]nat.Event{l.live[i]}); err != nil {
			return bindings.LogPosition{}, err
		}
	}
	return l.place(l.first + len(l.events)), nil
}

// TestFollower: a new collector gets the blocks in service and all later events, over restarts;
// after a gap, and after each interval, it gets the blocks in service again, as interims.
func TestFollower(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	now, gaps, seen := time.UnixMilli(100_000_000).UTC(), 0, 0
	clock := func() time.Time { return now }
	sink, err := Open(Options{
		Protocol: Syslog, Target: "udp://127.0.0.1:9", Spool: path, Interim: time.Hour, Now: clock, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	log := &fakeLog{epoch: "one", first: 7, live: eventsFrom(1, 2), joined: map[string]bindings.LogPosition{}}
	var f *Follower
	restart := func() {
		f = NewFollower(FollowerOptions{
			Name: "export", Log: log, To: sink, Groups: func() []string { return []string{"default"} },
			Gap: func(string) { gaps++ }, Now: clock, Logger: slog.New(slog.DiscardHandler),
		})
	}
	expect := func(what string, want []nat.Event, failure error) {
		t.Helper()
		if err := f.look(t.Context()); !errors.Is(err, failure) {
			t.Errorf("%s: %v, want %v", what, err, failure)
		}
		got := all(t, sink.spool)[seen:]
		seen += len(got)
		if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: came %v, want %v", what, got, want)
		}
	}
	interims := func() []nat.Event {
		list := eventsFrom(1, 2)
		for i := range list {
			list[i].Kind, list[i].Since, list[i].At = nat.Interim, list[i].At, now
		}
		return list
	}
	restart()
	log.partial = true
	expect("a log that is not whole", nil, nil)
	log.partial = false
	log.failure = errors.New("away")
	expect("a database that is away", nil, log.failure)
	log.failure = nil
	expect("the blocks in service", eventsFrom(1, 2), nil)
	if log.joined["export"] != log.place(7) {
		t.Errorf("joined at %v", log.joined)
	}
	log.events = eventsFrom(10, 3*followMost)
	expect("later events", eventsFrom(10, 3*followMost), nil)
	if log.joined["export"] != log.place(7+3*followMost) {
		t.Errorf("told %v", log.joined)
	}
	restart()
	expect("nothing new", nil, nil)
	now = now.Add(time.Hour)
	expect("interims", interims(), nil)
	restart()
	expect("no interims yet", nil, nil)
	log.events = append(log.events, event(1000))
	expect("one event", eventsFrom(1000, 1), nil)
	log.first, log.events = 9999, nil
	log.telling = errors.New("the database is full")
	for range 3 {
		expect("a gap in a database that takes nothing", nil, log.telling)
	}
	log.telling = nil
	expect("a gap", interims(), nil)
	log.epoch, log.first, log.partial = "two", 0, true
	log.events = eventsFrom(2000, 1)
	for range 3 {
		expect("another database that is not whole yet", nil, nil)
	}
	log.partial = false
	expect("another database", interims(), nil)
	log.events = eventsFrom(2000, 2)
	expect("an event behind it", eventsFrom(2001, 1), nil)
	if gaps != 2 {
		t.Errorf("%d gaps", gaps)
	}
	if err := sink.spool.db.Close(); err != nil { // a disk that takes nothing
		t.Fatal(err)
	}
	log.events = eventsFrom(2000, 3)
	if err := f.look(t.Context()); err == nil {
		t.Error("an event was taken without a disk")
	}
	if sink.spool, err = openSpool(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	expect("the event once there is one", eventsFrom(2002, 1), nil)
	sink.stats.LastError = errors.New("away")
	now = now.Add(-10 * time.Hour) // a clock that was ahead
	expect("no interims while the collector is away", nil, nil)
	sink.stats.LastError = nil
	expect("interims after the clock was set back", interims(), nil)
	if position, err := sink.Position("default"); position != fmt.Sprint(log.place(3)) || err != nil {
		t.Errorf("the position is %s, %v", position, err)
	}
}
