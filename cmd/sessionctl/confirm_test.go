package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

func TestDeleteAsks(t *testing.T) {
	t.Parallel()
	for answer, deleted := range map[string]bool{"y\n": true, "YES\n": true, "yes": true, "n\n": false, "\n": false, "what\n": false} {
		b := controltest.Scene()
		server := controltest.Serve(t, b, nil)
		r := ctl(t, server.Address, answer, "subscriber", "delete", "100.64.0.7")
		if (r.code == 0) != deleted || (len(b.Online) == 1) != deleted {
			t.Errorf("answer %q: exit %d, %d online: %s", answer, r.code, len(b.Online), r.stderr)
		}
		if !strings.Contains(r.stderr, "Delete subscriber 100.64.0.7 (alice)") || strings.Contains(r.stdout, "?") {
			t.Errorf("asked %q, printed %q", r.stderr, r.stdout)
		}
	}
}

func TestQuestionsCount(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	for line, want := range map[string]string{
		"subscriber delete --nas bng1.example": "Delete 2 subscribers and end their NAT sessions? [y/N] ",
		"session kill --inside 100.64.0.7":     "End 2 NAT sessions? [y/N] ",
		"session kill --protocol icmp":         "End 1 NAT session? [y/N] ",
		"removal confirm --group default":      "Carry out 1 held removal and end 2 NAT sessions? [y/N] ",
		"removal refuse --nas bng1.example":    "Drop 1 held removal and keep the subscribers online? [y/N] ",
		"removal refuse --group other":         "sessionctl: no such removal is held",
		"subscriber delete --user nobody":      "sessionctl: no such subscriber is online",
		"session kill --protocol udp":          "sessionctl: no such session",
	} {
		r := ctl(t, server.Address, "n\n", strings.Fields(line)...)
		if r.code != exitRefused || !strings.HasPrefix(r.stderr, want) {
			t.Errorf("%s: exit %d, stderr %q", line, r.code, r.stderr)
		}
	}
}

// askedRemovals notes the etags of decisions.
type askedRemovals struct {
	*controltest.Backend
	etags []string
}

func (b *askedRemovals) ConfirmRemovals(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error) {
	b.etags = append(b.etags, etag)
	return b.Backend.ConfirmRemovals(ctx, f, etag)
}

// TestDecisionIsAboutTheCounted: the removals that the question counted are those that are carried out.
func TestDecisionIsAboutTheCounted(t *testing.T) {
	t.Parallel()
	b := &askedRemovals{Backend: controltest.Scene()}
	address := controltest.Serve(t, b.Backend, func(o *control.Options) { o.Removals = b }).Address
	r := ctl(t, address, "y\n", "removal", "confirm", "--group", "default")
	key := controltest.Scene().Waiting[0].Record.Key
	if want := inspect.RemovalsEtag([]subscriber.Key{key}); r.code != exitDone || len(b.etags) != 1 || b.etags[0] != want {
		t.Errorf("code %d, etags %q, want %s: %s", r.code, b.etags, want, r.stderr)
	}
}

// TestSwitchOnAsks: switching removal on asks if it cuts draining subscribers outside their
// grace time, and only at a terminal; scripts need no --yes.
func TestSwitchOnAsks(t *testing.T) {
	t.Parallel()
	const question = "Cut 1 draining subscriber and end the NAT sessions? [y/N] "
	for _, c := range []struct {
		line, answer string
		draining     bool
		asks, set    bool
	}{
		{"settings set subscriber_session_removal=on", "y\n", true, true, true},
		{"settings set idle_timeouts.udp=2m subscriber_session_removal=on", "n\n", true, true, false},
		{"settings set subscriber_session_removal=on", "n\n", false, false, true},
		{"settings set subscriber_session_removal=on --yes", "n\n", true, false, true},
		{"settings set subscriber_session_removal=on", "", true, false, true},
		{"settings set subscriber_session_removal=observe", "n\n", true, false, true},
	} {
		b := controltest.Scene()
		b.Live.Removal = inspect.RemovalOff
		inGrace := b.Leases[0]
		inGrace.Inside, inGrace.State, inGrace.GraceUntil = inGrace.Inside.Next(), nat.Draining, controltest.Now.Add(time.Minute)
		b.Leases = append(b.Leases, inGrace)
		if c.draining {
			b.Leases[0].State = nat.Draining
		}
		server := controltest.Serve(t, b, nil)
		r := ctl(t, server.Address, c.answer, strings.Fields(c.line)...)
		set := b.Live.Removal != inspect.RemovalOff
		if asks := strings.HasPrefix(r.stderr, question); asks != c.asks || set != c.set || (r.code == exitDone) != c.set {
			t.Errorf("%s, answer %q: exit %d, set %t, stderr %q", c.line, c.answer, r.code, set, r.stderr)
		}
	}
}

func TestNoTerminalIsRefused(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	server := controltest.Serve(t, b, nil)
	r := ctl(t, server.Address, "", "subscriber", "delete", "100.64.0.7")
	if r.code != exitRefused || !strings.Contains(r.stderr, "--yes") || len(b.Online) != 2 {
		t.Errorf("exit %d, %d online: %s", r.code, len(b.Online), r.stderr)
	}
}

func TestEndOfInputIsRefused(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	b := controltest.Scene()
	server := controltest.Serve(t, b, nil)
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"subscriber", "delete", "100.64.0.7", "--addr", server.Address}, null, &stdout, &stderr)
	if code != exitRefused || !strings.Contains(stderr.String(), "--yes") || len(b.Online) != 2 {
		t.Errorf("exit %d, %d online: %s", code, len(b.Online), stderr.String())
	}
}

func TestIsTerminal(t *testing.T) {
	t.Parallel()
	regular, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(strings.NewReader("y")) || isTerminal(regular) || isTerminal(null) {
		t.Error("something that is no terminal was taken for one")
	}
}
