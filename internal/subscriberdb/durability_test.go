package subscriberdb

import (
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestDoubtsOfRedis: settings with which Redis may lose records are reported, each with the
// value to set, and safe settings are not.
func TestDoubtsOfRedis(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"safe":         {args: []string{"--appendonly", "yes"}},
		"evicts":       {args: []string{"--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"}, want: []string{"maxmemory-policy is allkeys-lru"}},
		"keeps little": {args: []string{"--save", "60", "1"}, want: []string{"only snapshots are kept"}},
		"keeps nothing": {
			args: []string{"--maxmemory-policy", "volatile-ttl"}, want: []string{"maxmemory-policy is volatile-ttl", "nothing is kept on disk"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.StartRedis(t, tt.args...)
			client, err := redisconn.Dial([]string{server.URL}, "", 1)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			doubts, err := newDB(t, client).Doubts(t.Context())
			if err != nil || len(doubts) != len(tt.want) {
				t.Fatalf("doubts %q, %v; want %q", doubts, err, tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(doubts[i], want) {
					t.Errorf("doubt %q, want %q", doubts[i], want)
				}
			}
		})
	}
}
