package console

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

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
