// Package redistest starts a Redis for tests of the store, with the client that the daemon
// would use.
package redistest

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/testenv"
)

// OnEach runs one test body against a real Redis and against the embedded one.
func OnEach(t *testing.T, body func(t *testing.T, client redis.UniversalClient)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		body(t, Start(t))
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		e, err := redisconn.OpenEmbedded()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		body(t, e.Client)
	})
}

// Start starts a Redis with the given arguments for the duration of the test, and connects
// to it.
func Start(t testing.TB, args ...string) redis.UniversalClient {
	t.Helper()
	return Dial(t, testenv.StartRedis(t, args...).URL)
}

// Dial connects to a Redis for the duration of the test.
func Dial(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	client, err := redisconn.Dial([]string{url}, redisconn.ModeStandalone, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
