package removals

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// newWatcher returns a watcher of no group.
func newWatcher(client redis.UniversalClient, logger *slog.Logger) *Watcher {
	return New(Options{Client: redisconn.New(client), Groups: func() []string { return nil }, Logger: logger})
}

// TestNotificationFlags: flags that another program has set stay set.
func TestNotificationFlags(t *testing.T) {
	client := redistest.Start(t, "--notify-keyspace-events", "K$")
	w := newWatcher(client, slog.New(slog.DiscardHandler))
	n := serverNotifications{watcher: w, server: client}
	if n.check(t.Context()); !n.on {
		t.Fatal("not enabled")
	}
	got := client.ConfigGet(t.Context(), "notify-keyspace-events").Val()["notify-keyspace-events"]
	for _, flag := range "K$Egxe" {
		if !slices.Contains([]rune(got), flag) {
			t.Errorf("flags %q lack %c", got, flag)
		}
	}
	if got := mergeFlags("AK", neededFlags); got != "AKE" {
		t.Errorf("AK merged to %q", got)
	}
}

// TestRefusalIsAnAnswer: only a server that answers counts as refusing notifications.
func TestRefusalIsAnAnswer(t *testing.T) {
	away := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer away.Close()
	for name, tt := range map[string]struct {
		client redis.UniversalClient
		told   bool
	}{
		"away":    {away, false},
		"refuses": {redistest.Start(t, "--rename-command", "CONFIG", ""), true},
	} {
		var said bytes.Buffer
		w := newWatcher(tt.client, slog.New(slog.NewTextHandler(&said, nil)))
		n := serverNotifications{watcher: w, server: tt.client}
		if n.check(t.Context()); n.on {
			t.Errorf("%s: enabled", name)
		}
		if told := strings.Contains(said.String(), "does not let us"); told != tt.told {
			t.Errorf("%s: said %q", name, said.String())
		}
	}
}
