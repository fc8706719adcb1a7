package console

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

// TestProblemsAreNamed: a change that fails shows its form again, with the field or the reason; the
// next sending is the same request, unless that was another one.
func TestProblemsAreNamed(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	s := siteOf(t, b, false, nil)
	v := s.signedIn(access.Admin)
	for path, want := range map[string]string{
		"subscribers/100.64.0.7/terminate?remote=x":       `filter.remote: "x" is no IPv4 address or prefix`,
		"subscribers/x/end":                               `"x" is no IPv4 address`,
		"settings/removal?mode=x":                         `mode: "x" is none of on, off and observe`,
		"removals/confirm?cause=x":                        `cause: "x" is not known`,
		"removals/confirm":                                "filter: is required",
		"removals/confirm?inside=x":                       "filter.inside:",
		"pools/drain?prefix=198.51.100.1%2F28":            `outside_prefix: "198.51.100.1/28" has host bits; write 198.51.100.0/28`,
		"pools/drain?prefix=192.0.2.0%2F28":               "not found",
		"done/console-AAAAAAAAAAAAAAAAAAAAAAAAAA":         "sessionctl audit list --request-id",
		"subscribers/100.64.0.99/end":                     "Nobody is online at this address.",
		"subscribers/100.64.0.7/terminate?remote=9.9.9.9": "0 sessions with 9.9.9.9 would end.",
	} {
		a := v.get(path)
		if text := words(t, a.body); !strings.Contains(text, want) || strings.Contains(a.body, `name="reason"`) {
			t.Errorf("%s: status %d, %q is missing, or there is a form:\n%s", path, a.code, want, text)
		}
	}
	const end = "subscribers/100.64.0.7/end"
	form := formIn(t, v.get(end).body)
	form.Set("reason", strings.Repeat("ä", 300)) // more octets than the field's characters
	a := v.post(end, form)
	if a.code != http.StatusBadRequest || !strings.Contains(words(t, a.body), "reason: is longer than 512 octets") || !strings.Contains(a.body, `aria-invalid="true"`) {
		t.Errorf("a long reason: status %d:\n%s", a.code, words(t, a.body))
	}
	form.Set("reason", "first")
	b.Audits.Err = fmt.Errorf("%w: %w", audit.ErrUnwritten, inspect.ErrUnavailable)
	a = v.post(end, form)
	if next := formIn(t, a.body); a.code != http.StatusServiceUnavailable || !strings.Contains(words(t, a.body), "the audit entry cannot be written, so its change is not made") || next.Get("request_id") != form.Get("request_id") {
		t.Errorf("without an audit: status %d:\n%s", a.code, words(t, a.body))
	}
	b.Audits.Err = nil
	if a := v.post(end, form); a.code != http.StatusSeeOther {
		t.Errorf("again: status %d:\n%s", a.code, words(t, a.body))
	}
	b.SetOnline(controltest.Scene().Online...)
	form.Set("reason", "second")
	a = v.post(end, form)
	if next := formIn(t, a.body); a.code != http.StatusBadRequest || !strings.Contains(words(t, a.body), "was sent before, with other contents") || next.Get("request_id") == form.Get("request_id") {
		t.Errorf("another change with the same form: status %d:\n%s", a.code, words(t, a.body))
	}
	if n := len(b.Orders); n != 1 {
		t.Errorf("%d orders", n)
	}
}

// failingCalls are calls of the API that fail, if they change something, and if the preview fails too,
// all.
type failingCalls struct {
	grpc.ClientConnInterface
	err     error
	preview bool
}

func (c *failingCalls) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	change, ok := args.(interface{ GetValidateOnly() bool })
	if c.err != nil && ok && (c.preview || !change.GetValidateOnly()) {
		return c.err
	}
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, o...)
}

// TestDoubtfulOutcomes: a change that may have been made in part is not said to have changed nothing, and
// it can be gone on with. The reason of a failure within is for the log alone.
func TestDoubtfulOutcomes(t *testing.T) {
	t.Parallel()
	var calls failingCalls
	s := siteOf(t, controltest.Scene(), false, func(o *Options) {
		calls.ClientConnInterface = o.Calls
		o.Calls = &calls
	})
	v := s.signedIn(access.Admin)
	form := formIn(t, v.get("removals/confirm?group=default").body)
	form.Set("reason", "ticket 7")
	for _, c := range []struct {
		err     error
		preview bool
		code    int
		want    string
	}{
		{status.Error(codes.Unavailable, "after 64 removals: the database is away"), false, 503, "after 64 removals: the database is away. A part may be changed"},
		{status.Error(codes.Unavailable, "after 64 removals: the database is away"), true, 503, "the database is away; sessionctl audit list --request-id console-"},
		{status.Error(codes.Internal, "secret cause"), false, 500, "The log of sessiond has the reason, and sessionctl audit list --request-id console-"},
		{status.Error(codes.DeadlineExceeded, "too long"), false, 504, "A part may be changed"},
		{status.Error(codes.Aborted, "another record by now"), false, 409, "another record by now"},
	} {
		calls.err, calls.preview = c.err, c.preview
		a := v.post("removals/confirm", form)
		text := words(t, a.body)
		if a.code != c.code || !strings.Contains(text, c.want) || strings.Contains(text, "Nothing was changed") || strings.Contains(text, "secret cause") {
			t.Errorf("%v: status %d:\n%s", c.err, a.code, text)
		}
		if next := formIn(t, a.body); next.Has("request_id") && next.Get("request_id") != form.Get("request_id") {
			t.Errorf("%v: the next sending is another change", c.err)
		}
		checkMarkup(t, "a failure", a.body)
	}
	calls.err = nil
	if a := v.post("removals/confirm", form); a.code != http.StatusSeeOther || len(s.backend.Orders) != 1 {
		t.Errorf("in the end: status %d, %d orders", a.code, len(s.backend.Orders))
	}
}

// partFails is a backend that refuses removals in parts, whose last part fails.
type partFails struct {
	*controltest.Backend
	err error
}

func (b *partFails) RefuseRemovals(ctx context.Context, _ inspect.RemovalFilter, _ string) (int, error) {
	audit.From(ctx).Wrote()
	return 64, b.err
}

// TestFailuresOfALaterPart: an order that fails when a part of it is carried out is not said to have
// changed nothing, whatever it fails by.
func TestFailuresOfALaterPart(t *testing.T) {
	t.Parallel()
	for _, failed := range []error{audit.ErrUnwritten, inspect.ErrFull, fmt.Errorf("%w: %w", inspect.ErrFull, audit.ErrUnwritten)} {
		b := &partFails{controltest.Scene(), failed}
		s := siteOf(t, b.Backend, false, func(o *Options) {
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(tokensOf[access.Admin]), 0o600); err != nil {
				t.Fatal(err)
			}
			server := controltest.Serve(t, b.Backend, func(o *control.Options) {
				o.Removals, o.Grants = b, []control.Grant{{Role: access.Admin, Name: "admin", TokenFile: file}}
			})
			o.Tokens, o.Calls = server, server.Within()
		})
		v := s.signedIn(access.Admin)
		form := formIn(t, v.get("removals/refuse?group=default").body)
		form.Set("reason", "ticket 7")
		for range 2 { // the next attempt does not know what the first changed
			a := v.post("removals/refuse", form)
			if text := words(t, a.body); a.code != http.StatusServiceUnavailable || !strings.Contains(text, "after 64 removals:") || !strings.Contains(text, "A part may be changed") {
				t.Errorf("%v: status %d:\n%s", failed, a.code, text)
			}
		}
	}
}
