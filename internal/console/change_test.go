package console

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/signin"
	"github.com/sessiond/sessiond/internal/testenv"
)

// tokensOf are the tokens of the tests, by role.
var tokensOf = map[access.Role]string{
	access.Viewer: "viewer-token-planted-secret-1", access.Operator: "operator-token-planted-secret-2", access.Admin: "admin-token-planted-secret-3",
}

// lockedLog is a log that several tasks write.
type lockedLog struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *lockedLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

// testClock is a time that a test moves.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// changeableSite is a console whose visitors can sign in.
type changeableSite struct {
	t       testing.TB
	backend *controltest.Backend
	console *Console
	server  *httptest.Server
	control *controltest.Server
	grants  []control.Grant
	files   map[access.Role]string // of tokens
	clock   testClock
	log     lockedLog
}

// siteOf serves a console over a backend, with the API beside it.
func siteOf(t testing.TB, b *controltest.Backend, tls bool, change func(*Options)) *changeableSite {
	t.Helper()
	s := &changeableSite{t: t, backend: b, files: map[access.Role]string{}, clock: testClock{now: controltest.Now}}
	log := slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for role, token := range tokensOf {
		file := filepath.Join(t.TempDir(), role.String())
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		s.files[role] = file
		s.grants = append(s.grants, control.Grant{Role: role, Name: role.String(), TokenFile: file})
	}
	s.control = controltest.Serve(t, b, func(o *control.Options) { o.Grants, o.Logger, o.Now = s.grants, log, s.clock.time })
	o := optionsOf(b)
	o.Tokens, o.Calls, o.Logger, o.Now = s.control, s.control.Within(), log, s.clock.time
	if change != nil {
		change(&o)
	}
	var err error
	if s.console, err = New(o); err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewUnstartedServer(s.console.Handler())
	if tls {
		s.server.EnableHTTP2 = true
		s.server.StartTLS()
	} else {
		s.server.Start()
	}
	t.Cleanup(func() {
		s.server.CloseClientConnections() // of streams
		s.server.Close()
	})
	return s
}

// siteVisitor is a browser without a window.
type siteVisitor struct {
	*changeableSite
	client *http.Client
}

func (s *changeableSite) visitor() *siteVisitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &siteVisitor{s, &http.Client{
		Transport: s.server.Client().Transport, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// signedIn returns a visitor with a role; access.None is one who has not signed in.
func (s *changeableSite) signedIn(role access.Role) *siteVisitor {
	s.t.Helper()
	v := s.visitor()
	if role == access.None {
		return v
	}
	if a := v.post("signin", url.Values{"token": {tokensOf[role]}}); a.code != http.StatusSeeOther || a.location != Path {
		s.t.Fatalf("sign-in as %s: %+v", role, a)
	}
	return v
}

// siteAnswer is the answer to a request.
type siteAnswer struct {
	code           int
	location, body string
	header         http.Header
}

func (v *siteVisitor) do(r *http.Request) siteAnswer {
	v.t.Helper()
	resp, err := v.client.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return siteAnswer{resp.StatusCode, resp.Header.Get("Location"), string(body), resp.Header}
}

func (v *siteVisitor) request(method, path, body string) *http.Request {
	v.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = Path + path
	}
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.server.URL+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	return r
}

func (v *siteVisitor) get(path string) siteAnswer {
	v.t.Helper()
	return v.do(v.request("GET", path, ""))
}

// post sends a form as a browser does from a page of the console.
func (v *siteVisitor) post(path string, form url.Values) siteAnswer {
	v.t.Helper()
	return v.do(v.formRequest(path, form))
}

func (v *siteVisitor) formRequest(path string, form url.Values) *http.Request {
	v.t.Helper()
	r := v.request("POST", path, form.Encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", v.server.URL)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

// cookies returns the values of the visitor's cookies.
func (v *siteVisitor) cookies() (values []string) {
	u, err := url.Parse(v.server.URL + Path)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, c := range v.client.Jar.Cookies(u) {
		values = append(values, c.Value)
	}
	return values
}

// formIn returns the form of a page that is sent by POST from the content of the page.
func formIn(t testing.TB, page string) url.Values {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "input" || attributeOf(n, "name") == "" {
			continue
		}
		for up := n.Parent; up != nil; up = up.Parent {
			if up.Data == "form" && attributeOf(up, "class") == "entry" && attributeOf(up, "method") == "post" {
				form.Set(attributeOf(n, "name"), attributeOf(n, "value"))
			}
		}
	}
	return form
}

func attributeOf(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

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

// TestHostileBrowser: requests that the pages of the console do not make change nothing, although the
// browser is that of an admin who has signed in.
func TestHostileBrowser(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	before := s.backend.State()
	v, other, gone := s.signedIn(access.Admin), s.signedIn(access.Admin), s.signedIn(access.Admin)
	for _, ch := range s.console.offeredChanges() {
		path := pathOf(t, ch)
		good := formIn(t, v.get(path+changeablePages[path].query).body)
		good.Set("reason", "forged")
		with := func(name, value string) url.Values {
			form := url.Values{}
			for key := range good {
				form.Set(key, good.Get(key))
			}
			form.Set(name, value)
			return form
		}
		header := func(name, value string) func(*http.Request) {
			return func(r *http.Request) {
				if r.Header.Del(name); value != "" {
					r.Header.Set(name, value)
				}
			}
		}
		foreign := func(r *http.Request) {
			r.Header.Set("Origin", "https://attacker.example")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
		}
		theirs := formIn(t, other.get(path+changeablePages[path].query).body)
		for name, c := range map[string]struct {
			form   url.Values
			change func(*http.Request)
			code   int
		}{
			"a form of another site": {good, foreign, 403},
			"the same, by an old browser": {good, func(r *http.Request) {
				header("Sec-Fetch-Site", "")(r)
				header("Origin", "https://attacker.example")(r)
			}, 403},
			"a page in a sandbox": {good, header("Origin", "null"), 403},
			"another port of this host": {good, func(r *http.Request) {
				header("Origin", "http://127.0.0.1:1")(r)
				header("Sec-Fetch-Site", "same-site")(r)
			}, 403},
			"no browser":                            {good, func(r *http.Request) { header("Origin", "")(r); header("Sec-Fetch-Site", "")(r) }, 403},
			"a typed address":                       {good, func(r *http.Request) { header("Origin", "")(r); header("Sec-Fetch-Site", "none")(r) }, 403},
			"another host name (DNS rebinding)":     {good, func(r *http.Request) { r.Host = "attacker.example"; header("Origin", "http://attacker.example")(r) }, 421},
			"a forged host of a proxy":              {good, func(r *http.Request) { r.Host = "attacker.example"; header("X-Forwarded-Host", "127.0.0.1")(r) }, 421},
			"no signature":                          {with("signature", ""), nil, 403},
			"a signature of another session":        {with("signature", theirs.Get("signature")), nil, 403},
			"a form of another session":             {with2(with("signature", theirs.Get("signature")), "request_id", theirs.Get("request_id"), "until", theirs.Get("until")), nil, 403},
			"another request":                       {with("request_id", "console-AAAAAAAAAAAAAAAAAAAAAAAAAA"), nil, 403},
			"a longer time":                         {with("until", "99999999999"), nil, 403},
			"no cookie":                             {good, header("Cookie", "sessiond="), 403},
			"a cookie of nobody":                    {good, header("Cookie", "sessiond=AAAAAAAAAAAAAAAAAAAAAAAAAA"), 403},
			"a form in the query":                   {nil, func(r *http.Request) { r.URL.RawQuery = good.Encode() }, 403},
			"plain text, which needs no permission": {good, header("Content-Type", "text/plain"), 403},
			"several parts":                         {good, header("Content-Type", "multipart/form-data; boundary=x"), 403},
			"more than a form":                      {with("reason", strings.Repeat("x", maxForm)), nil, 400},
			"another method":                        {good, func(r *http.Request) { r.Method = "PUT" }, 404},
		} {
			client := v
			if strings.Contains(name, "cookie") {
				client = s.visitor()
			}
			r := client.formRequest(path, c.form)
			if c.change != nil {
				c.change(r)
			}
			if a := client.do(r); a.code != c.code {
				t.Errorf("%s, %s: status %d, want %d", path, name, a.code, c.code)
			}
		}
	}
	// The cookie of a session that was signed out.
	form := formIn(t, gone.get("subscribers/100.64.0.7/end").body)
	form.Set("reason", "late")
	id := gone.cookies()[0]
	out := signOutFormIn(t, gone.get("subscribers").body)
	if a := gone.post("signout", url.Values{"until": out["until"]}); a.code != http.StatusForbidden {
		t.Errorf("a sign-out without signature: status %d", a.code)
	}
	if a := gone.post("signout", out); a.code != http.StatusSeeOther {
		t.Errorf("sign-out: status %d", a.code)
	}
	stolen := s.visitor()
	r := stolen.formRequest("subscribers/100.64.0.7/end", form)
	r.Header.Set("Cookie", "sessiond="+id)
	if a := stolen.do(r); a.code != http.StatusForbidden || !strings.Contains(a.body, "not signed in, or not any more") {
		t.Errorf("with the cookie of a session that was signed out: status %d", a.code)
	}
	// A form that is too old.
	form = formIn(t, v.get("subscribers/100.64.0.7/end").body)
	form.Set("reason", "late")
	s.clock.pass(10*time.Minute + time.Second)
	a := v.post("subscribers/100.64.0.7/end", form)
	if next := formIn(t, a.body); a.code != http.StatusConflict || !strings.Contains(a.body, "too old") || next.Get("request_id") == form.Get("request_id") || next.Get("reason") != "late" {
		t.Errorf("a form that is too old: status %d:\n%s", a.code, words(t, a.body))
	}
	if s.backend.State() != before || len(s.backend.Orders) > 0 {
		t.Errorf("something changed: %v", s.backend.Orders)
	}
}

// with2 sets two more fields.
func with2(form url.Values, pairs ...string) url.Values {
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form
}

// signOutFormIn returns the form of a page that signs out.
func signOutFormIn(t testing.TB, page string) url.Values {
	t.Helper()
	form := url.Values{}
	for _, name := range []string{"until", "signature"} {
		found := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(page)
		if found == nil {
			t.Fatalf("no form to sign out:\n%s", page)
		}
		form.Set(name, html.UnescapeString(found[1]))
	}
	return form
}

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

func (b *partFails) RefuseRemovals(ctx context.Context, _ inspect.RemovalFilter) (int, error) {
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

// TestOnlyTheSeenSessionEnds: a form ends the session that its page showed, and not the one that has
// the address by the time when it is sent.
func TestOnlyTheSeenSessionEnds(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	v := s.signedIn(access.Operator)
	form := formIn(t, v.get("subscribers/100.64.0.7/end").body)
	form.Set("reason", "ticket 7")
	next := controltest.Scene().Online[0]
	next.AcctSessionID = "0B07"
	s.backend.SetOnline(next)
	a := v.post("subscribers/100.64.0.7/end", form)
	if text := words(t, v.get(a.location).body); !strings.Contains(text, "Nobody was ended: the session was over already.") {
		t.Errorf("status %d: %s", a.code, text)
	}
	if !strings.Contains(s.backend.State(), "0B07") {
		t.Error("the next session at the address ended")
	}
}

// TestFormsDoNotChangeTheirSubject: the page of a form that failed does not offer to end another session
// that has the address by then.
func TestFormsDoNotChangeTheirSubject(t *testing.T) {
	t.Parallel()
	const end = "subscribers/100.64.0.7/end"
	for name, late := range map[string]bool{"without a reason": false, "too old": true} {
		for field, change := range map[string]func(*inspect.Subscriber){
			"Acct-Session-Id": func(s *inspect.Subscriber) { s.AcctSessionID = "0B07" },
			"User-Name":       func(s *inspect.Subscriber) { s.UserName = "carol" },
			"neither": func(s *inspect.Subscriber) {
				s.UserName, s.AcctSessionID, s.CallingStationID = "", "", "02:00:00:00:00:01"
			},
		} {
			s := siteOf(t, controltest.Scene(), false, nil)
			v := s.signedIn(access.Operator)
			form := formIn(t, v.get(end).body)
			if late {
				form.Set("reason", "ticket 7")
				s.clock.pass(10*time.Minute + time.Second)
			}
			next := controltest.Scene().Online[0]
			change(&next)
			s.backend.SetOnline(next)
			a := v.post(end, form)
			if text := words(t, a.body); !strings.Contains(text, "That session is over") || strings.Contains(text, "ticket 7") || len(formIn(t, a.body)) > 0 {
				t.Errorf("%s, another %s: status %d:\n%s", name, field, a.code, text)
			}
		}
	}
}

// TestEndOfANamelessRecord: a record with neither User-Name nor Acct-Session-Id is told from others by
// its version alone.
func TestEndOfANamelessRecord(t *testing.T) {
	t.Parallel()
	const end = "subscribers/100.64.0.7/end"
	s := siteOf(t, controltest.Scene(), false, nil)
	nameless := controltest.Scene().Online[0]
	nameless.UserName, nameless.AcctSessionID, nameless.CallingStationID, nameless.Version = "", "", "02:00:00:00:00:01", "5-1"
	s.backend.SetOnline(nameless)
	before := s.backend.State()
	v := s.signedIn(access.Operator)
	form := formIn(t, v.get(end).body)
	form.Set("reason", "ticket 7")
	if form.Get("etag") != "5-1" {
		t.Errorf("the form has the version %q", form.Get("etag"))
	}
	forged := formIn(t, v.get(end).body)
	forged.Set("reason", "ticket 8")
	forged.Del("etag")
	if a := v.post(end, forged); a.code != http.StatusBadRequest || s.backend.State() != before {
		t.Errorf("without a version: status %d:\n%s", a.code, words(t, a.body))
	}
	nameless.Version = "6-1"
	s.backend.SetOnline(nameless)
	before = s.backend.State()
	a := v.post(end, form)
	if text := words(t, a.body); a.code != http.StatusConflict || !strings.Contains(text, "its record has changed") || s.backend.State() != before {
		t.Errorf("another version: status %d:\n%s", a.code, text)
	}
	form = formIn(t, v.get(end).body)
	form.Set("reason", "ticket 7")
	if done := v.get(v.post(end, form).location); !strings.Contains(done.body, "1 subscriber ended.") {
		t.Errorf("the present version: %s", words(t, done.body))
	}
}

// TestHostileTextsInChanges: nothing that RADIUS says, or that a link brings, becomes markup on the
// pages of changes.
func TestHostileTextsInChanges(t *testing.T) {
	t.Parallel()
	for _, text := range hostile {
		b := controltest.Scene()
		b.Online[0].UserName, b.Online[0].NAS, b.Online[0].AcctSessionID = text, text, text
		for i := range b.Waiting {
			b.Waiting[i].Record.UserName, b.Waiting[i].Record.NAS = text, text
		}
		s := siteOf(t, b, false, nil)
		v := s.signedIn(access.Admin)
		escaped := url.QueryEscape(text)
		for _, path := range []string{
			"subscribers/100.64.0.7", "subscribers/100.64.0.7/end", "subscribers/100.64.0.7/terminate", "removals", "settings",
			"removals/confirm?nas=" + escaped, "removals/refuse?group=" + escaped, "pools/drain?prefix=" + escaped, "done/" + queryEscape(strings.ReplaceAll(text, "/", "")),
			"subscribers/100.64.0.7/terminate?remote=" + escaped, "signin?next=" + escaped, "settings/removal?mode=" + escaped,
		} {
			a := v.get(path)
			checkMarkup(t, path, a.body)
			if strings.ContainsAny(a.body, "\u202e\u2066\u2069\x00\x1b") {
				t.Errorf("%s: %q is in the page as it is", path, text)
			}
		}
		form := formIn(t, v.get("subscribers/100.64.0.7/end").body)
		form.Set("reason", "")
		checkMarkup(t, "a form with a problem", v.post("subscribers/100.64.0.7/end", form).body)
		form.Set("reason", "x")
		done := v.get(v.post("subscribers/100.64.0.7/end", form).location)
		checkMarkup(t, "an outcome", done.body)
		if !strings.Contains(done.body, "1 subscriber ended.") { // the text leads back to the same octets
			t.Errorf("%q: %s", text, words(t, done.body))
		}
	}
}

// TestSecretsAreKept: tokens and identifiers of sessions are in no log, page, order or address.
func TestSecretsAreKept(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	v := s.signedIn(access.Admin)
	secrets := v.cookies()
	for _, token := range tokensOf {
		secrets = append(secrets, token)
	}
	seen := []string{}
	for _, path := range []string{"", "subscribers", "subscribers/100.64.0.7", "subscribers/100.64.0.7/end", "settings", "removals", "outside", "signin", "nothing", "done/x"} {
		seen = append(seen, v.get(path).body)
	}
	wrong := "wrong-token-planted-secret-4"
	a := v.post("signin", url.Values{"token": {wrong}, "next": {Path + "subscribers"}})
	seen = append(seen, a.body, a.location)
	form := formIn(t, v.get("subscribers/100.64.0.7/end").body)
	form.Set("reason", "ticket 7")
	a = v.post("subscribers/100.64.0.7/end", form)
	seen = append(seen, a.location, v.get(a.location).body)
	v.post("signout", signOutFormIn(t, v.get("").body))
	for request, answer := range s.backend.Audits.Requests {
		seen = append(seen, fmt.Sprint(request), string(answer))
	}
	seen = append(seen, fmt.Sprintf("%+v", s.backend.Orders[0]), s.log.text())
	for _, secret := range append(secrets, wrong) {
		if i := slices.IndexFunc(seen, func(text string) bool { return strings.Contains(text, secret) }); i >= 0 {
			t.Errorf("%q is in:\n%s", secret, seen[i])
		}
	}
	for _, want := range []string{"signed in to the console", "actor=token:admin", "signed out of the console", "sign-in to the console refused"} {
		if !strings.Contains(s.log.text(), want) {
			t.Errorf("the log has no %q:\n%s", want, s.log.text())
		}
	}
}

// TestLiveEndsWithTheSession: the event stream of who needs a sign-in ends with it.
func TestLiveEndsWithTheSession(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, func(o *Options) { o.Anonymous = access.None })
	if a := s.visitor().get("live"); a.code != http.StatusForbidden {
		t.Errorf("a stream of who has not signed in: status %d", a.code)
	}
	v := s.signedIn(access.Viewer)
	resp, err := v.client.Do(v.request("GET", "live", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, resp.Body)
		ended <- err
	}()
	v.post("signout", signOutFormIn(t, v.get("subscribers").body))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the stream goes on")
	}
}

// TestLiveRenewsNoSession: an event stream, its checks and the parts of pages keep nobody signed in, by a
// browser that does not say for what it asks.
func TestLiveRenewsNoSession(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	v := s.signedIn(access.Viewer)
	id := v.cookies()[0]
	session := s.console.sessions.Find(id, s.clock.time(), false)
	session.User = nil // for a request without a connection
	s.clock.pass(signin.IdleTime - time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := v.client.Do(v.request("GET", "live", "").WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	v.get("assets/console.css")
	r := v.request("GET", "subscribers", "") // a page, whose stream goes on
	r.Header.Set("Cookie", "sessiond="+id)
	r.RemoteAddr = "127.0.0.1:1"
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, s.server.Listener.Addr()))
	if !s.console.stillSignedIn(r, visitor{session: session}) {
		t.Fatal("the session is over too early")
	}
	s.clock.pass(time.Minute)
	if s.console.sessions.Find(id, s.clock.time(), false) != nil {
		t.Error("the session goes on")
	}
}

// TestWithdrawnTokens: a session ends when its token is taken out of its file, and when the token gets
// another role; a new token takes the place of an old one without an end.
func TestWithdrawnTokens(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	signedIn := func(v *siteVisitor) bool { return strings.Contains(v.get("settings").body, "Signed in as") }
	viewer, operator, admin := s.signedIn(access.Viewer), s.signedIn(access.Operator), s.signedIn(access.Admin)
	if !signedIn(viewer) || !signedIn(operator) || !signedIn(admin) {
		t.Fatal("nobody has signed in")
	}
	if err := os.WriteFile(s.files[access.Viewer], []byte(tokensOf[access.Viewer]+"\nanother-token-of-the-viewer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.files[access.Operator]); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the token is withdrawn", func() bool { return !signedIn(operator) })
	if !signedIn(viewer) || !signedIn(admin) {
		t.Error("sessions of others ended")
	}
	changed := slices.Clone(s.grants)
	for i := range changed {
		if changed[i].Role == access.Admin {
			changed[i].Role = access.Viewer
		}
	}
	use, err := s.control.Roles(changed)
	if err != nil {
		t.Fatal(err)
	}
	use()
	if signedIn(admin) {
		t.Error("a session has the role that its token has no more")
	}
	use, err = s.control.Roles(s.grants)
	if err != nil {
		t.Fatal(err)
	}
	use()
	if signedIn(admin) {
		t.Error("a session that ended is back")
	}
}

// FuzzForms: no form without the signature of its page changes anything, or fails the server.
func FuzzForms(f *testing.F) {
	f.Add("reason=x&request_id=y&until=99999999999&signature=AAAA")
	f.Add("%zz&;=&reason=%00%ff")
	f.Add("token=operator-token-planted-secret-9&next=//attacker.example")
	s := siteOf(f, controltest.Scene(), false, nil)
	v := s.signedIn(access.Admin)
	before, cookie := s.backend.State(), "sessiond="+v.cookies()[0]
	f.Fuzz(func(t *testing.T, body string) {
		for _, ch := range s.console.offeredChanges() {
			r := httptest.NewRequest("POST", Path+pathOf(t, ch), strings.NewReader(body))
			r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, s.server.Listener.Addr()))
			r.Header.Set("Origin", "http://localhost")
			r.Header.Set("Cookie", cookie)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			s.server.Config.Handler.ServeHTTP(w, r)
			if w.Code >= 500 || w.Code < 400 {
				t.Errorf("%s: status %d", ch.path, w.Code)
			}
		}
		if s.backend.State() != before {
			t.Error("something changed")
		}
	})
}
