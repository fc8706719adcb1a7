package subscriberdb

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestRecordStories checks the feed after a series of events, each in a batch of its own
// and all in one batch: the order within a batch is kept.
func TestRecordStories(t *testing.T) {
	stories := []struct {
		name   string
		events []subscriber.Event
		feed   []string
		other  []string
	}{
		{
			name:   "SES-02 start twice",
			events: []subscriber.Event{start("a", addr, 0), start("a", addr, 0)},
			feed:   []string{"created 100.64.0.1 a", "updated 100.64.0.1 a"},
		}, {
			name:   "SES-03 interim only",
			events: []subscriber.Event{interim("a", addr, 0)},
			feed:   []string{"created 100.64.0.1 a"},
		}, {
			name:   "SES-04 stop of an unknown session",
			events: []subscriber.Event{start("a", addr, 0), stop("b", addr, time.Minute)},
			feed:   []string{"created 100.64.0.1 a"},
		}, {
			name: "SES-05 interim with the address, then one without",
			events: []subscriber.Event{
				start("a", noAddr, 0), interim("a", addr, time.Minute), interim("a", noAddr, 2*time.Minute),
			},
			feed: []string{"created 100.64.0.1 a", "updated 100.64.0.1 a"},
		}, {
			name: "SES-07 stop lost, then late stop (SES-06)",
			events: []subscriber.Event{
				start("a", addr, 0), start("b", addr, time.Hour), stop("a", addr, 2*time.Hour),
			},
			feed: []string{"created 100.64.0.1 a", "deleted 100.64.0.1 a SUPERSEDED", "created 100.64.0.1 b"},
		}, {
			name: "SES-09 changed address",
			events: []subscriber.Event{
				start("a", addr, 0), interim("a", next, time.Hour),
			},
			feed: []string{"created 100.64.0.1 a", "deleted 100.64.0.1 a SUPERSEDED", "created 100.64.0.2 a"},
		}, {
			name: "SES-09 changed group and back",
			events: []subscriber.Event{
				start("a", addr, 0), interim("a", away, time.Hour), interim("a", addr, 2*time.Hour), start("a", addr, 0),
			},
			feed: []string{
				"created 100.64.0.1 a", "deleted 100.64.0.1 a SUPERSEDED", "created 100.64.0.1 a", "updated 100.64.0.1 a",
			},
			other: []string{"created 100.70.0.1 a", "deleted 100.70.0.1 a SUPERSEDED"},
		}, {
			name: "SES-09 to an address of no group and back",
			events: []subscriber.Event{
				start("a", addr, 0), interim("a", foreign, time.Hour), interim("a", addr, time.Minute),
				interim("a", foreign, 2*time.Hour), interim("a", addr, 3*time.Hour), stop("a", foreign, 4*time.Hour),
			},
			feed: []string{
				"created 100.64.0.1 a", "deleted 100.64.0.1 a SUPERSEDED", "created 100.64.0.1 a", "deleted 100.64.0.1 a STOP",
			},
		}, {
			name: "SES-10 interim after stop",
			events: []subscriber.Event{
				start("a", addr, 0), stop("a", addr, time.Hour), interim("a", addr, time.Hour+time.Second),
			},
			feed: []string{"created 100.64.0.1 a", "deleted 100.64.0.1 a STOP"},
		}, {
			name:   "SES-11 stop before its start",
			events: []subscriber.Event{stop("a", addr, time.Hour), start("a", addr, 0)},
		}, {
			name:   "SES-11 stop without an address before its start",
			events: []subscriber.Event{stop("a", noAddr, time.Hour), start("a", addr, 0)},
		}, {
			name:   "stop without an address",
			events: []subscriber.Event{start("a", addr, 0), stop("a", noAddr, time.Hour)},
			feed:   []string{"created 100.64.0.1 a", "deleted 100.64.0.1 a STOP"},
		}, {
			name:   "stop from an address of another group",
			events: []subscriber.Event{start("a", addr, 0), stop("a", away, time.Hour)},
			feed:   []string{"created 100.64.0.1 a", "deleted 100.64.0.1 a STOP"},
		}, {
			name: "SES-12 identifier used again",
			events: []subscriber.Event{
				start("a", addr, 0), start("a", addr, time.Hour), stop("a", addr, time.Minute),
			},
			feed: []string{"created 100.64.0.1 a", "deleted 100.64.0.1 a SUPERSEDED", "created 100.64.0.1 a"},
		}, {
			name: "SES-14 interim of the older session",
			events: []subscriber.Event{
				start("a", addr, 0), start("b", addr, time.Hour), interim("a", addr, 2*time.Hour),
			},
			feed: []string{"created 100.64.0.1 a", "deleted 100.64.0.1 a SUPERSEDED", "created 100.64.0.1 b"},
		}, {
			name:   "ACCT-24 no address, ACCT-25 another's address",
			events: []subscriber.Event{start("a", noAddr, 0), start("b", foreign, 0), stop("b", foreign, time.Hour)},
		},
	}
	for _, story := range stories {
		t.Run(strings.ReplaceAll(story.name, " ", "_"), func(t *testing.T) {
			redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
				for _, whole := range []bool{false, true} {
					if err := client.FlushAll(t.Context()).Err(); err != nil {
						t.Fatal(err)
					}
					db := newDB(t, client)
					tell(t, db, story.events, whole)
					checkStory(t, db, "default", story.feed)
					checkStory(t, db, "other", story.other)
				}
			})
		})
	}
}

func tell(t *testing.T, db *DB, events []subscriber.Event, whole bool) {
	t.Helper()
	if whole {
		record(t, db, events...)
		return
	}
	for _, ev := range events {
		record(t, db, ev)
	}
}

func checkStory(t *testing.T, db *DB, group string, want []string) {
	t.Helper()
	if got := story(changes(t, db, group)); !slices.Equal(got, want) {
		t.Errorf("feed of %s:\n%s\nwant:\n%s", group, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
