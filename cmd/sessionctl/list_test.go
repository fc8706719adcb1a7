package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

func TestListsPageThroughEverything(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	sub, lease, removal, router := b.Online[1], b.Leases[0], b.Waiting[0], b.Routers[0]
	b.Online, b.Leases, b.Waiting, b.Routers = nil, nil, nil, nil
	inside := netip.MustParseAddr("100.64.0.0")
	for range 2345 {
		sub.Inside, lease.Inside, removal.Record.Inside = inside, inside, inside
		b.Waiting = append(b.Waiting, removal)
		router.Name = inside.String()
		b.Routers = append(b.Routers, router)
		b.Online, b.Leases = append(b.Online, sub), append(b.Leases, lease)
		inside = inside.Next()
	}
	server := controltest.Serve(t, b, nil)
	for _, line := range []string{"subscriber list", "binding list", "removal list", "nas list"} {
		b.Pages.Store(0)
		r := ctl(t, server.Address, "", strings.Fields(line)...)
		if n := strings.Count(r.stdout, "\n"); n != 2346 || b.Pages.Load() != 3 {
			t.Errorf("%s: %d lines in %d pages", line, n, b.Pages.Load())
		}
	}
}

// TestListsGoOnBehindEmptyPages: a page without items is not the last one if it
// has a token.
func TestListsGoOnBehindEmptyPages(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	sub := b.Online[1]
	b.Online, b.Looks = nil, 100
	sub.Inside = netip.MustParseAddr("100.64.0.0")
	for i := range 1000 {
		sub.UserName = "user"
		if i == 777 {
			sub.UserName = "alice"
		}
		b.Online = append(b.Online, sub)
		sub.Inside = sub.Inside.Next()
	}
	server := controltest.Serve(t, b, nil)
	for _, line := range []string{"subscriber list --user alice -o json", "subscriber list --user alice"} {
		b.Pages.Store(0)
		r := ctl(t, server.Address, "", strings.Fields(line)...)
		if strings.Count(r.stdout, "alice") != 1 || b.Pages.Load() < 10 {
			t.Errorf("%s: %d pages, %s", line, b.Pages.Load(), r.stdout)
		}
	}
}

// TestListsEndWithTheirReader: when show fails, the list ends, with no fetch
// left running.
func TestListsEndWithTheirReader(t *testing.T) {
	t.Parallel()
	broken, fetches, over := errors.New("broken pipe"), 0, 0
	err := eachPage(t.Context(), func(ctx context.Context, token string) (int, string, error) {
		if fetches++; fetches == 3 {
			<-ctx.Done()
		}
		over++
		return fetches, token + "x", ctx.Err()
	}, func(page int) error {
		if page == 2 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) || over != 3 {
		t.Errorf("%v, %d of %d fetches are over", err, over, fetches)
	}
}

func TestErrorsHint(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		inspect.ErrUnavailable: "check Redis",
		inspect.ErrNotReady:    "sessionctl status",
		inspect.ErrConflict:    "repeat the command",
	} {
		b := controltest.Scene()
		b.Err = err
		server := controltest.Serve(t, b, nil)
		for _, line := range []string{"subscriber list", "session list", "subscriber delete -y --user x", "nas list", "nas get n"} {
			r := ctl(t, server.Address, "", strings.Fields(line)...)
			if r.code != exitRefused || !strings.Contains(r.stderr, want) {
				t.Errorf("%s, %v: exit %d: %s", line, err, r.code, r.stderr)
			}
		}
	}
}

// TestNoAnswerIsUnreachable: a daemon accepts the connection and sends nothing.
func TestNoAnswerIsUnreachable(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, line := range []string{"status --timeout 50ms", "watch --timeout 50ms"} {
		r := ctl(t, silent.Addr().String(), "", strings.Fields(line)...)
		if r.code != exitUnreachable {
			t.Errorf("%s: exit %d: %s", line, r.code, r.stderr)
		}
	}
}

func TestNamesCannotDisturbTheTerminal_ACCT23(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Online[0].UserName = "eve\r\n\x1b[2J\xff"
	server := controltest.Serve(t, b, nil)
	r := ctl(t, server.Address, "", "subscriber", "list")
	if strings.ContainsAny(r.stdout, "\r\x1b") || !utf8.ValidString(r.stdout) || !strings.Contains(r.stdout, "eve%0D%0A%1B[2J%FF") {
		t.Errorf("printed %q", r.stdout)
	}
	r = ctl(t, server.Address, "", "subscriber", "list", "--user", "eve%0D%0A%1B[2J%FF")
	if strings.Count(r.stdout, "\n") != 2 {
		t.Errorf("asking for the name as shown gave %q", r.stdout)
	}
}

func TestNASNamesCannotDisturbTheTerminal_ACCT23(t *testing.T) {
	t.Parallel()
	const shown = "a/b c%00%0D%0A%1B[2J%FF"
	b := controltest.Scene()
	b.Routers[1].Name = "a/b c\x00\r\n\x1b[2J\xff"
	b.Routers[1].SameAs = inspect.NASKey{Client: "x\x1b", Name: b.Routers[1].Name}
	server := controltest.Serve(t, b, nil)
	for _, line := range [][]string{{"nas", "list"}, {"nas", "get", shown}, {"nas", "list", "--nas", shown}, {"nas", "list", "-o", "json"}} {
		r := ctl(t, server.Address, "", line...)
		if r.code != exitDone || strings.ContainsAny(r.stdout, "\r\x1b\x00") || !utf8.ValidString(r.stdout) || !strings.Contains(r.stdout, shown) {
			t.Errorf("%q printed %q, exit %d", line, r.stdout, r.code)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Online = append(b.Online, inspect.Subscriber{Record: subscriber.Record{
		Key: subscriber.Key{Group: "default", Inside: netip.MustParseAddr("100.65.0.1")},
	}})
	server := controltest.Serve(t, b, nil)
	for line, want := range map[string]string{
		"subscriber get 100.64.":                   "100.64.0.7\talice\n100.64.0.8\tbob\n:4\n",
		"subscriber delete 100.65":                 "100.65.0.1\n:4\n",
		"subscriber get 100.64.0.7 ":               ":4\n",
		"binding list --inside 100.64.0.8":         "100.64.0.8\tbob\n:4\n",
		"subscriber list --group d":                "default\n:4\n",
		"settings set subscriber_session_removal=": "subscriber_session_removal=on\nsubscriber_session_removal=off\nsubscriber_session_removal=observe\n:4\n",
		"session list --protocol t":                "tcp\nudp\nicmp\n:4\n",
		"audit verify d":                           "default\n:4\n",
		"subscriber delete --reason x":             ":4\n",
		"nas get bng":                              "bng1.example\tbng1\nbng2.example\tcore\nbng3.example\tcore\nbng4.example\tcore\n:4\n",
		"nas get bng1.example ":                    ":4\n",
		"nas get MikroTik --client s":              "site1\nsite2\n:4\n",
		"nas list --nas M":                         "MikroTik\tsite1\n:4\n",
		"subscriber list --nas bng2":               "bng2.example\tcore\n:4\n",
		"subscriber delete --user a":               "alice\t100.64.0.7\n:4\n",
		"mapping create --owner b":                 "bob\t100.64.0.8\n:4\n",
		"binding list --outside 198":               "198.51.100.0/28\tdefault\n:4\n",
		"subscriber list --sort=-se":               "-group\n-inside\n-user\n-nas\n-outside\n-ports\n-state\n-sessions\n-online\n-seen\n-up\n-down\n:4\n",
	} {
		fields := strings.Fields(line)
		if strings.HasSuffix(line, " ") {
			fields = append(fields, "")
		}
		r := ctl(t, server.Address, "", append([]string{"__complete"}, fields...)...)
		if r.stdout != want {
			t.Errorf("%q completes to %q, want %q", line, r.stdout, want)
		}
	}
	r := ctl(t, "127.0.0.1:1", "", "__complete", "subscriber", "get", "")
	if r.code != 0 || r.stdout != ":4\n" {
		t.Errorf("without a daemon: exit %d, %q", r.code, r.stdout)
	}
}
