package session

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/console"
	"github.com/sessiond/sessiond/internal/control"
)

// quietMachine has nothing to tell.
type quietMachine struct{}

func (quietMachine) Kernel() console.Kernel { return console.Kernel{} }
func (quietMachine) Totals() console.Totals { return console.Totals{} }
func (quietMachine) Layout(string) (console.Layout, bool) {
	return console.Layout{First: crowdGroup.FirstPort, Last: crowdGroup.LastPort, BlockSize: crowdGroup.BlockSize}, true
}

// noTokens knows no token.
type noTokens struct{}

func (noTokens) TokenActor(access.Token, *access.Caller) (access.Actor, error) {
	return access.Actor{}, access.ErrTokenUnknown
}

// FeedFill is asked for by Status.
func (lifeStore) FeedFill(string) float64 { return 0 }

// firstPaint is the time in which a browser has to show a page; the server has half of it.
const firstPaint = 200 * time.Millisecond

// BenchmarkConsole measures pages of the console by the number of online subscribers, from the request
// to the last octet of HTML.
func BenchmarkConsole(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		l := newCrowdedLife(b, n)
		c, err := console.New(console.Options{
			Subscribers: l.Backend, Nat: l.Backend, Sessions: l.Backend, Controls: l.Backend, Removals: l.Backend,
			Machine: quietMachine{}, Tokens: noTokens{}, Calls: control.Within{}, Anonymous: access.Viewer, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		pages := c.Handler()
		for name, path := range map[string]string{
			"overview": "", "outside": "outside/198.18.1.7", "subscribers": "subscribers", "customer": "subscribers/" + l.key(n/2).Inside.String(),
			"user": fmt.Sprintf("subscribers?user=user-%d@example.net", n/2),
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					r := httptest.NewRequest("GET", console.Path+path, nil)
					r.Host = "localhost"
					w := httptest.NewRecorder()
					if pages.ServeHTTP(w, r); w.Code != http.StatusOK {
						b.Fatal(w.Code, w.Body)
					}
				}
				if took := b.Elapsed() / time.Duration(b.N); took > firstPaint/2 {
					b.Errorf("a page takes %v", took)
				}
			})
		}
	}
}
