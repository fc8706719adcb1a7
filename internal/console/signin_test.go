package console

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/signin"
)

// TestSignIn: a token makes a session, whose cookie no script and no other site has, and over TLS no
// other host and no plain text; then one goes on where one wanted to.
func TestSignIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tls  bool
		want string // cookie without its value
	}{
		{false, "sessiond=; Path=/console/; HttpOnly; SameSite=Strict"},
		{true, "__Host-sessiond=; Path=/; HttpOnly; Secure; SameSite=Strict"},
	} {
		s := siteOf(t, controltest.Scene(), c.tls, func(o *Options) { o.Anonymous = access.None })
		v := s.visitor()
		a := v.get("subscribers?user=alice")
		if a.code != http.StatusSeeOther || a.location != "/console/signin?next=%2Fconsole%2Fsubscribers%3Fuser%3Dalice" {
			t.Fatalf("who has not signed in gets status %d, to %s", a.code, a.location)
		}
		form := formIn(t, v.get(a.location).body)
		form.Set("token", " "+tokensOf[access.Operator]+"\n") // as it is copied from a file
		a = v.post("signin", form)
		if a.code != http.StatusSeeOther || a.location != "/console/subscribers?user=alice" {
			t.Fatalf("sign-in: status %d, to %s", a.code, a.location)
		}
		id := v.cookies()[0]
		if got := strings.ReplaceAll(a.header.Get("Set-Cookie"), id, ""); got != c.want {
			t.Errorf("cookie %s, want %s", got, c.want)
		}
		page := v.get(a.location)
		if text := words(t, page.body); page.code != http.StatusOK || !strings.Contains(text, "Signed in as token:operator , operator") || !strings.Contains(text, "alice") {
			t.Errorf("status %d:\n%s", page.code, text)
		}
		v.post("signin", form)
		if s.console.sessions.Find(id, s.clock.time(), false) != nil || v.cookies()[0] == id {
			t.Error("a second sign-in leaves the first session, or its identifier")
		}
		v.post("signout", signOutFormIn(t, v.get("subscribers").body))
		if a := v.get("subscribers"); a.code != http.StatusSeeOther || len(v.cookies()) > 0 {
			t.Errorf("after the sign-out: status %d, %d cookies", a.code, len(v.cookies()))
		}
	}
}

// TestSignInRefused: what is no token of grpc.roles makes no session, all of it is told alike, and after
// some attempts with an advice to wait. A right token is taken all the while: others may come from there.
func TestSignInRefused_I10(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	v := s.visitor()
	bodies := map[string]bool{}
	for _, token := range []string{"", "x", tokensOf[access.Admin] + "x", strings.ToUpper(tokensOf[access.Admin]), "a b c"} {
		a := v.post("signin", url.Values{"token": {token}})
		if a.code != http.StatusForbidden || len(v.cookies()) > 0 {
			t.Errorf("%q: status %d, %d cookies", token, a.code, len(v.cookies()))
		}
		bodies[a.body] = true
	}
	if len(bodies) != 1 {
		t.Errorf("wrong tokens get %d different answers", len(bodies))
	}
	wrong := url.Values{"token": {tokensOf[access.Admin] + "x"}}
	a := v.post("signin", wrong)
	if a.code != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || len(v.cookies()) > 0 {
		t.Errorf("a further attempt: status %d", a.code)
	}
	s.signedIn(access.Admin)
	if a := v.post("signin", wrong); a.code != http.StatusTooManyRequests {
		t.Errorf("another one, behind the sign-in of somebody else: status %d", a.code)
	}
	s.clock.pass(11e9)
	if a := v.post("signin", wrong); a.code != http.StatusForbidden {
		t.Errorf("after some time: status %d", a.code)
	}
}

// TestSignInNeedsPrivacy: over plain HTTP from another machine there is no sign-in, and a session that
// was begun elsewhere has no rights there.
func TestSignInNeedsPrivacy(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	id, _ := s.console.sessions.Begin(signin.Holder{Token: tokenOf(t, access.Admin), Name: "token:admin", Role: access.Admin}, s.clock.time())
	send := func(method, path, remote, local, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, Path+path, strings.NewReader(body))
		r.Host, r.RemoteAddr = "localhost", remote
		r.Header.Set("Origin", "http://localhost")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(&http.Cookie{Name: cookieInPlain, Value: id})
		r.AddCookie(&http.Cookie{Name: cookieOverTLS, Value: id})
		a := &net.TCPAddr{IP: net.ParseIP(local), Port: 7901}
		w := httptest.NewRecorder()
		s.server.Config.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, a)))
		return w
	}
	for _, ends := range [][2]string{{"192.0.2.7:40000", "192.0.2.10"}, {"127.0.0.1:40000", "192.0.2.10"}, {"192.0.2.7:40000", "127.0.0.1"}, {"x", "127.0.0.1"}} {
		w := send("POST", "signin", ends[0], ends[1], url.Values{"token": {tokensOf[access.Admin]}}.Encode())
		if w.Code != http.StatusForbidden || w.Header().Get("Set-Cookie") != "" || !strings.Contains(w.Body.String(), "set http.tls") {
			t.Errorf("from %s to %s: status %d:\n%s", ends[0], ends[1], w.Code, words(t, w.Body.String()))
		}
		if w := send("GET", "signin", ends[0], ends[1], ""); w.Code != http.StatusForbidden {
			t.Errorf("the page to sign in, from %s to %s: status %d", ends[0], ends[1], w.Code)
		}
		if w := send("GET", "settings", ends[0], ends[1], ""); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "Signed in") || strings.Contains(w.Body.String(), "Sign in") {
			t.Errorf("a page, from %s to %s: status %d:\n%s", ends[0], ends[1], w.Code, words(t, w.Body.String()))
		}
	}
	if w := send("GET", "settings", "127.0.0.1:40000", "127.0.0.1", ""); !strings.Contains(w.Body.String(), "Signed in as") {
		t.Errorf("on loopback the session is not known:\n%s", words(t, w.Body.String()))
	}
}

func tokenOf(t testing.TB, role access.Role) access.Token {
	t.Helper()
	token, err := access.ParseToken(tokensOf[role])
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestSessionIsOfOneUser: on loopback, a cookie that another user of the machine learned is worth
// nothing to it.
func TestSessionIsOfOneUser(t *testing.T) {
	t.Parallel()
	s := siteOf(t, controltest.Scene(), false, nil)
	for user, known := range map[uint32]bool{0: true, 4711: false} {
		id, _ := s.console.sessions.Begin(signin.Holder{Token: tokenOf(t, access.Admin), Name: "token:admin", Role: access.Admin, User: &user}, s.clock.time())
		v := s.visitor()
		r := v.request("GET", "settings", "")
		r.Header.Set("Cookie", "sessiond="+id)
		if got := strings.Contains(v.do(r).body, "Signed in as"); got != known {
			t.Errorf("a session of user %d is known to user 0: %v", user, got)
		}
	}
}

// TestNextPath: a sign-in leads to pages of the console alone.
func TestNextPath(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": Path, "/console/": "/console/", "/console/subscribers?user=a%2Fb": "/console/subscribers?user=a%2Fb",
		"https://attacker.example/console/": Path, "//attacker.example/console/": Path, "/console/../metrics": Path, "/console/%2e%2e/metrics": Path,
		"/consoleX": Path, "/metrics": Path, "\\\\attacker.example": Path, "/console/\\x": Path, "javascript:alert(1)": Path, "/console/\x00": Path,
	} {
		if got := nextPath(text); got != want {
			t.Errorf("%q leads to %q, want %q", text, got, want)
		}
	}
}

// FuzzNextPath: whatever is asked for, a browser stays on this server, below Path.
func FuzzNextPath(f *testing.F) {
	for _, text := range append(hostile, "/console/x", "/console//attacker.example", "/console/..;/", "/console/%2f..") {
		f.Add(text)
	}
	base, err := url.Parse("http://127.0.0.1:7901/console/signin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := base.Parse(nextPath(text))
		if err != nil || u.Host != base.Host || u.Scheme != "http" || !strings.HasPrefix(path.Clean(u.Path)+"/", Path) {
			t.Errorf("%q leads to %v, %v", text, u, err)
		}
	})
}

// TestAnonymousVisitors: who has not signed in reads where the console is open, and nothing else.
func TestAnonymousVisitors(t *testing.T) {
	t.Parallel()
	for role, want := range map[access.Role]int{access.None: http.StatusSeeOther, access.Viewer: http.StatusOK} {
		s := siteOf(t, controltest.Scene(), false, func(o *Options) { o.Anonymous = role })
		for _, page := range everyPage {
			if page.name == "error" {
				continue
			}
			if a := s.visitor().get(page.path); a.code != want || role == access.None && strings.Contains(a.body, "alice") {
				t.Errorf("%s as %s: status %d, want %d", page.name, role, a.code, want)
			}
		}
		for _, page := range []string{"signin", "assets/console.css"} {
			if a := s.visitor().get(page); a.code != http.StatusOK {
				t.Errorf("%s as %s: status %d", page, role, a.code)
			}
		}
	}
	for _, role := range []access.Role{access.Operator, access.Admin} {
		o := optionsOf(controltest.Scene())
		o.Anonymous = role
		if _, err := New(o); err == nil {
			t.Errorf("who has not signed in can be %s", role)
		}
	}
}
