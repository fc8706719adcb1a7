package console

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// changeablePages has a path for each change, with a change that the scene has.
var changeablePages = map[string]struct {
	query   string
	preview []string // texts of its page
	outcome string
}{
	"subscribers/100.64.0.7/end":       {"", []string{"1 subscriber would end, with 2 sessions.", "User alice", "Acct-Session-Id 0A01", "The BNG is not told."}, "1 subscriber ended."},
	"subscribers/100.64.0.7/terminate": {"?remote=203.0.113.5%3A443", []string{"1 session with 203.0.113.5:443 would end.", "The subscriber stays online"}, "1 session with 203.0.113.5:443 ended."},
	"settings/removal":                 {"?mode=off", []string{"subscriber_session_removal would be off.", "until they idle out"}, "subscriber_session_removal is off."},
	"removals/confirm":                 {"?group=default", []string{"1 subscriber would end, with 2 sessions."}, "1 subscriber ended."},
	"removals/refuse":                  {"?cause=EXPIRED", []string{"1 subscriber would stay online."}, "1 subscriber kept online."},
	"pools/drain":                      {"?group=default&prefix=198.51.100.0%2F28", []string{"198.51.100.0/28 would give no more blocks. 2,013 free blocks would not be allocated any more."}, "198.51.100.0/28 gives no more blocks."},
	"pools/add":                        {"?group=default&prefix=203.0.113.0%2F28", []string{"203.0.113.0/28 would give blocks again."}, "203.0.113.0/28 gives blocks again."},
}

// pathsOf returns a path of changeablePages for a change.
func pathOf(t testing.TB, ch offeredChange) string {
	t.Helper()
	path := strings.ReplaceAll(ch.path, "{address}", "100.64.0.7")
	if _, ok := changeablePages[path]; !ok {
		t.Fatalf("changeablePages has nothing for %s", ch.path)
	}
	return path
}

// TestEveryChange: each change can be made by those whose role may make its call over gRPC, and by
// nobody else, not even with a form that is theirs. Its page says what would happen, changes nothing,
// and its form is needed. The order has who, why, from where and the name of the request. A form that
// is sent again changes nothing.
func TestEveryChange(t *testing.T) {
	t.Parallel()
	console, err := New(optionsOf(controltest.Scene()))
	if err != nil {
		t.Fatal(err)
	}
	for i, ch := range console.offeredChanges() {
		path := pathOf(t, ch)
		needed, err := access.Needed(ch.method, nil)
		if err != nil || needed <= access.Viewer {
			t.Fatalf("%s needs role %v, %v", ch.method, needed, err)
		}
		for role := access.None; role <= access.Admin; role++ {
			t.Run(fmt.Sprintf("%s as %s", strings.ReplaceAll(path, "/", " "), role), func(t *testing.T) {
				t.Parallel()
				s := siteOf(t, controltest.Scene(), false, nil)
				if role < needed {
					refusesChange(t, s, s.console.offeredChanges()[i], path, role)
				} else {
					makesChange(t, s, ch.method, path, role)
				}
			})
		}
	}
}

// refusesChange checks that a visitor cannot make a change, neither with no form nor with a form that
// the session could have.
func refusesChange(t *testing.T, s *changeableSite, ch offeredChange, path string, role access.Role) {
	t.Helper()
	before, v := s.backend.State(), s.signedIn(role)
	page := changeablePages[path]
	a := v.get(path + page.query)
	switch {
	case role == access.None:
		if a.code != http.StatusSeeOther || !strings.HasPrefix(a.location, Path+"signin?next=") {
			t.Errorf("its page: %d, %s", a.code, a.location)
		}
	case a.code != http.StatusForbidden || !strings.Contains(a.body, "needs role"):
		t.Errorf("its page: status %d:\n%s", a.code, words(t, a.body))
	}
	form, err := url.ParseQuery(strings.TrimPrefix(page.query, "?"))
	if err != nil {
		t.Fatal(err)
	}
	form.Set("reason", "forged")
	for _, id := range append(v.cookies(), "") {
		if session := s.console.sessions.Find(id, s.clock.time(), false); session != nil {
			f := session.NewForm(Path+path, s.clock.time())
			form.Set("request_id", f.RequestID)
			form.Set("until", f.Until)
			form.Set("signature", f.Signature)
		}
		if a := v.post(path, form); a.code != http.StatusForbidden {
			t.Errorf("its form: status %d:\n%s", a.code, words(t, a.body))
		}
	}
	// Without the check of the page, the call itself is refused.
	actor := access.Actor{Name: "token:x", Role: role, Source: "192.0.2.1:5"}
	in := changeInput{Address: controltest.Scene().Online[0].Inside, Values: form}
	if _, err := ch.call(access.With(t.Context(), actor), in, changeOrder{Reason: "x", RequestID: "x"}); err == nil {
		t.Error("the call is made")
	}
	if got := s.backend.State(); got != before || len(s.backend.Orders) > 0 {
		t.Errorf("something changed: %v", s.backend.Orders)
	}
}

func makesChange(t *testing.T, s *changeableSite, method, path string, role access.Role) {
	t.Helper()
	before, v := s.backend.State(), s.signedIn(role)
	page := changeablePages[path]
	a := v.get(path + page.query)
	checkMarkup(t, path, a.body)
	text := words(t, a.body)
	for _, want := range page.preview {
		if a.code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("status %d, %q is missing in:\n%s", a.code, want, text)
		}
	}
	form := formIn(t, a.body)
	if again := formIn(t, v.get(path+page.query).body); again.Get("request_id") == form.Get("request_id") {
		t.Error("two forms have one request_id")
	}
	for _, reason := range []string{"", "  "} {
		form.Set("reason", reason)
		a := v.post(path, form)
		if a.code != http.StatusBadRequest || !strings.Contains(words(t, a.body), "reason: is required") || formIn(t, a.body).Get("signature") != form.Get("signature") {
			t.Errorf("without a reason: status %d:\n%s", a.code, words(t, a.body))
		}
	}
	if s.backend.State() != before || len(s.backend.Orders) > 0 {
		t.Fatalf("its page changes something: %v", s.backend.Orders)
	}
	form.Set("reason", "ticket 7")
	var after string
	for i := range 3 { // sent three times
		a := v.post(path, form)
		if want := Path + "done/" + form.Get("request_id"); a.code != http.StatusSeeOther || a.location != want {
			t.Fatalf("status %d, to %q:\n%s", a.code, a.location, words(t, a.body))
		}
		if done := v.get(a.location); done.code != http.StatusOK || !strings.Contains(words(t, done.body), page.outcome+" The audit trail has it") {
			t.Errorf("status %d:\n%s", done.code, words(t, done.body))
		}
		if i == 0 {
			after = s.backend.State()
		}
	}
	if after == before || s.backend.State() != after || len(s.backend.Orders) != 1 {
		t.Fatalf("%d orders, changed: %v", len(s.backend.Orders), after != before)
	}
	o, name := s.backend.Orders[0], method[strings.LastIndex(method, "/")+1:]
	if o.Method != name || o.Name != "token:"+role.String() || o.Role != role.String() || !strings.HasPrefix(o.Source, "127.0.0.1:") ||
		o.Reason != "ticket 7" || o.RequestID != form.Get("request_id") {
		t.Errorf("order %+v", o)
	}
}

// TestDoubleSubmit: forms that are sent at once, as by two clicks, are one change, and both get its
// outcome.
func TestDoubleSubmit(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	v := s.signedIn(access.Operator)
	form := formIn(t, v.get("subscribers/100.64.0.7/end").body)
	form.Set("reason", "twice")
	var sent sync.WaitGroup
	for range 8 {
		r := v.formRequest("subscribers/100.64.0.7/end", form)
		sent.Go(func() {
			resp, err := v.client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusSeeOther {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	sent.Wait()
	if n := len(s.backend.Orders); n != 1 {
		t.Errorf("%d orders", n)
	}
	if text := words(t, v.get("done/"+form.Get("request_id")).body); !strings.Contains(text, "1 subscriber ended.") {
		t.Errorf("the outcome is: %s", text)
	}
}

// slowCalls are calls of the API that take some time, if they change something.
type slowCalls struct {
	grpc.ClientConnInterface
	takes time.Duration
}

func (c slowCalls) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	if change, ok := args.(interface{ GetValidateOnly() bool }); ok && !change.GetValidateOnly() {
		<-time.After(c.takes)
	}
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, o...)
}

// TestLongChange: a change that takes longer than the server gives a page is made, and told.
func TestLongChange(t *testing.T) {
	t.Parallel()
	const within = 200 * time.Millisecond
	s := siteOf(t, controltest.Scene(), false, func(o *Options) { o.Calls = slowCalls{o.Calls, 3 * within} })
	s.server.Close()
	s.server = httptest.NewUnstartedServer(s.console.Handler())
	s.server.Config.WriteTimeout = within
	s.server.Start()
	v := s.signedIn(access.Operator)
	form := formIn(t, v.get("removals/confirm?group=default").body)
	form.Set("reason", "ticket 7")
	if a := v.post("removals/confirm", form); a.code != http.StatusSeeOther || len(s.backend.Orders) != 1 {
		t.Errorf("status %d, %d orders", a.code, len(s.backend.Orders))
	}
}
