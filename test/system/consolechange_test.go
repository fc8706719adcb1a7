package system

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/rig"
)

// planted is a token that must not be seen anywhere.
const planted = "planted-token-of-the-noc-desk"

// TestConsoleEndsASubscriber: who signs in to a real daemon ends a subscriber once, although the form
// is sent twice; the audit trail in Redis has who, why and the request; and the token is in no page, log
// or entry.
func TestConsoleEndsASubscriber(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	token := filepath.Join(t.TempDir(), "desk")
	w.must(os.WriteFile(token, []byte(planted), 0o600))
	taken, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return strings.Replace(config, "grpc: {", "grpc: {roles: [{role: operator, token_file: "+token+"}], ", 1)
	})
	w.must(err)
	if !taken {
		t.Fatalf("the role is not in force:\n%s", w.Daemon.Log())
	}
	s := sessionOf(alice, "a-1")
	w.online(s)
	jar, err := cookiejar.New(nil)
	w.must(err)
	browser := &http.Client{Jar: jar}
	site := "http://" + w.Daemon.HTTP
	var pages strings.Builder
	send := func(method, path string, form url.Values) (page, at string) {
		t.Helper()
		req, err := http.NewRequestWithContext(w.ctx, method, site+"/console/"+path, strings.NewReader(form.Encode()))
		w.must(err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", site)
		resp, err := browser.Do(req)
		w.must(err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		w.must(err)
		body := string(text)
		pages.WriteString(body)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: status %d:\n%s", method, path, resp.StatusCode, body)
		}
		return body, resp.Request.URL.Path
	}
	page, at := send("POST", "signin", url.Values{"token": {planted}, "next": {"/console/subscribers/" + s.Inside.String() + "/end"}})
	if !strings.Contains(page, "1 subscriber would end") || !strings.HasSuffix(at, "/end") {
		t.Fatalf("at %s:\n%s", at, page)
	}
	form := url.Values{"reason": {"ticket 7"}}
	for _, field := range regexp.MustCompile(`type="hidden" name="([a-z_]+)" value="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		form.Set(field[1], field[2]) // the last ones are those of the form itself
	}
	for range 2 {
		if page, _ := send("POST", "subscribers/"+s.Inside.String()+"/end", form); !strings.Contains(page, "1 subscriber ended.") {
			t.Errorf("the outcome:\n%s", page)
		}
	}
	w.must(w.Until(w.ctx, "the end of the subscriber", func() (bool, error) {
		page, _ := send("GET", "subscribers/"+s.Inside.String(), nil)
		return strings.Contains(page, "Nobody is online"), nil
	}))
	entries, err := w.Daemon.Ctl(w.ctx, "-o", "json", "audit", "list", "--request-id", form.Get("request_id"))
	w.must(err)
	for _, want := range []string{`"token:desk"`, `"operator"`, `"127.0.0.1:`, `"DeleteSubscribers"`, `"ticket 7"`, `"keys":["` + s.Inside.String() + `"]`} {
		if strings.Count(entries, want) != 1 {
			t.Errorf("%s is not once in:\n%s", want, entries)
		}
	}
	_, metrics, err := w.Daemon.Get(w.ctx, "/metrics")
	w.must(err)
	consoleURL, err := url.Parse(site + "/console/")
	w.must(err)
	for _, secret := range []string{planted, jar.Cookies(consoleURL)[0].Value} {
		for name, text := range map[string]string{"a page": pages.String(), "the log": w.Daemon.Log(), "the audit": entries, "metrics": metrics} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", name, secret)
			}
		}
	}
}

// TestConsoleOverTLS: with http.tls a daemon is asked over TLS, where a person has to sign in to read
// anything, gets a cookie for that alone, and stays signed in over a reload.
func TestConsoleOverTLS(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	certs := controltest.MakeCerts(t)
	token := filepath.Join(t.TempDir(), "desk")
	w.must(os.WriteFile(token, []byte(planted), 0o600))
	w.must(w.Daemon.Edit(func(config string) string {
		config = strings.Replace(config, "grpc: {", "grpc: {roles: [{role: viewer, token_file: "+token+"}], ", 1)
		return strings.Replace(config, `http: {`, "http: {tls: {cert_file: "+certs.Server+", key_file: "+certs.ServerKey+"}, ", 1)
	}))
	_, err := w.Daemon.Stop()
	w.must(err)
	w.must(w.Daemon.Launch(w.ctx))
	ca, err := os.ReadFile(certs.CA)
	w.must(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca)
	jar, err := cookiejar.New(nil)
	w.must(err)
	browser := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true}}
	site := "https://" + w.Daemon.HTTP
	send := func(method, path, body string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(w.ctx, method, site+path, strings.NewReader(body))
		w.must(err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", site)
		resp, err := browser.Do(req)
		w.must(err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		w.must(err)
		return resp, string(text)
	}
	w.must(w.Until(w.ctx, "sessiond to be ready", func() (bool, error) {
		resp, _ := send("GET", "/readyz", "")
		return resp.StatusCode == http.StatusOK, nil
	}))
	if resp, body := send("GET", "/console/subscribers", ""); resp.Request.URL.Path != "/console/signin" || resp.Proto != "HTTP/2.0" || !strings.Contains(body, "Token") {
		t.Errorf("at %s by %s", resp.Request.URL.Path, resp.Proto)
	}
	if _, body := send("POST", "/console/signin", "token="+planted); !strings.Contains(body, "token:desk") {
		t.Errorf("not signed in:\n%s", body)
	}
	consoleURL, err := url.Parse(site + "/console/")
	w.must(err)
	if cookies := jar.Cookies(consoleURL); len(cookies) != 1 || cookies[0].Name != "__Host-sessiond" {
		t.Errorf("cookies %v", cookies)
	}
	taken, err := w.Daemon.Reload(w.ctx, func(config string) string { return config })
	w.must(err)
	if _, body := send("GET", "/console/", ""); !taken || !strings.Contains(body, "token:desk") {
		t.Errorf("reloaded: %v; not signed in any more:\n%s", taken, body)
	}
	if resp, _ := send("GET", "/metrics", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("metrics: status %d", resp.StatusCode)
	}
}
