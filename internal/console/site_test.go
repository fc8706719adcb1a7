package console

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
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
