package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

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
						n, err := w.elements(flushed)
						return n == others+1, err
					})
				})
				t.Logf("map %s was back after %v", flushed, time.Since(began))
				out, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "map", "ip", "sessiond", flushed)
				w.must(err)
				if n := strings.Count(string(out), element); n != others+1 {
					t.Errorf("nft lists %d elements of map %s, want %d", n, flushed, others+1)
				}
				w.passes(f, "alice, after a flush of map "+flushed)
			}
		})
	}
}

// elements counts the elements of a map of our table as the kernel has them now. nft would take
// half of the second for its list.
func (w *world) elements(name string) (int, error) {
	ns, err := os.Open(w.Lab.CGN.Path())
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return 0, err
	}
	set, err := c.GetSetByName(&nftables.Table{Name: "sessiond", Family: nftables.TableFamilyIPv4}, name)
	if err != nil {
		return 0, err
	}
	elements, err := c.GetSetElements(set)
	if errors.Is(err, unix.EINTR) { // it was changed meanwhile
		return 0, nil
	}
	return len(elements), err
}
