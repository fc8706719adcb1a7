package system

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/acctload"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestFlushedMaps_I9: `nft flush map` of gate or block removes all elements. They are back
// within a second, however many there are, and flows go on.
func TestFlushedMaps_I9(t *testing.T) {
	for _, others := range []int{0, 15_000} {
		t.Run(fmt.Sprintf("beside %d", others), func(t *testing.T) {
			w := start(t, rig.Options{BlockSize: 64, Lab: netlab.Options{Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")}}})
			if others > 0 {
				inside := netip.MustParsePrefix("100.80.0.0/12")
				_, err := acctload.Run(w.ctx, w.load(acctload.Interim, inside, others, func(o *acctload.Options) {
					o.Concurrency, o.Duration = 256, time.Millisecond
				}))
				w.must(err)
				w.countsOnline(others)
			}
			w.online(sessionOf(alice, "a-1"))
			f := w.flow(alice)
			for flushed, element := range map[string]string{"gate": ": return", "block": ": 198.51."} {
				_, err := w.Lab.CGN.Output(w.ctx, "nft", "flush", "map", "ip", "sessiond", flushed)
				w.must(err)
				began := time.Now()
				w.soon(time.Second, func(ctx context.Context) error {
					return w.Until(ctx, "the elements of "+flushed, func() (bool, error) {
						out, err := w.Lab.CGN.Output(ctx, "nft", "list", "map", "ip", "sessiond", flushed)
						return strings.Count(string(out), element) == others+1, err
					})
				})
				t.Logf("map %s was back after %v", flushed, time.Since(began))
				w.passes(f, "alice, after a flush of map "+flushed)
			}
		})
	}
}
