package system

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestRandomRequests: requests of every method with random fields. A viewer's change nothing
// that sessionctl shows; those of root, who may do all, end no daemon, and accounting goes on.
func TestRandomRequests(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	w.must(w.Daemon.Edit(func(config string) string {
		before, after, _ := strings.Cut(config, `grpc: {listen: "`)
		socket, rest, _ := strings.Cut(after, `"`)
		return before + `grpc: {listen: "127.0.0.1:0", socket: "` + strings.TrimPrefix(socket, "unix:") + `"` + rest
	}))
	_, err := w.Daemon.Stop()
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))
	w.online(sessionOf(alice, "a-1"))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	viewer, err := grpc.NewClient(w.address("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	defer viewer.Close()
	root, err := w.Daemon.Dial()
	w.must(err)
	defer root.Close()
	shown := func() string {
		t.Helper()
		var all strings.Builder
		for _, args := range [][]string{
			{"subscriber", "get", alice.String()}, {"binding", "list"}, {"settings", "get"}, {"pool", "list"}, {"removal", "list"}, {"mapping", "list"},
		} {
			out, err := w.Daemon.Ctl(w.ctx, append(args, "-o", "json")...)
			w.must(err)
			all.WriteString(out)
		}
		return all.String()
	}
	requests := func(conn *grpc.ClientConn, rounds int) (done, denied int) {
		t.Helper()
		for range rounds {
			for _, m := range controltest.Methods() {
				ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
				request := controltest.Random(r, m.Input())
				err := controltest.Call(ctx, conn, m, request)
				cancel()
				if slices.Contains([]codes.Code{codes.Unknown, codes.Internal, codes.Unavailable}, status.Code(err)) {
					t.Errorf("%s: %v, with %v", controltest.FullName(m), err, request)
				}
				if done++; status.Code(err) == codes.PermissionDenied {
					denied++
				}
			}
		}
		return done, denied
	}
	before := shown()
	done, denied := requests(viewer, 10)
	if after := shown(); after != before {
		t.Errorf("a viewer's requests changed\n%s\nto\n%s", before, after)
	}
	if denied == 0 || denied == done {
		t.Errorf("of %d requests of a viewer %d were refused", done, denied)
	}
	if done, denied := requests(root, 10); denied > 0 {
		t.Errorf("of %d requests of root %d were refused", done, denied)
	}
	w.soon(10*time.Second, w.awaitReadyz)
	if code, _, err := w.Daemon.Get(w.ctx, "/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("health: %d, %v", code, err)
	}
	w.online(sessionOf(bob, "b-1"))
}
