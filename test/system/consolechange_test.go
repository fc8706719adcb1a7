package system

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/acctload"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// planted is a token that must not be seen anywhere.
const planted = "planted-token-of-the-noc-desk"

// desk is a browser of an operator's desk, without a window.
type desk struct {
	*world
	client *http.Client
	pages  strings.Builder // all that it was shown
}

// consoleDesk gives the desk a role in a running daemon.
func (w *world) consoleDesk(role string) *desk {
	w.t.Helper()
	token := filepath.Join(w.Dir, "desk")
	w.must(os.WriteFile(token, []byte(planted), 0o600))
	taken, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return strings.Replace(config, "grpc: {", "grpc: {roles: [{role: "+role+", token_file: "+token+"}], ", 1)
	})
	w.must(err)
	if !taken {
		w.t.Fatalf("the role is not in force:\n%s", w.Daemon.Log())
	}
	jar, err := cookiejar.New(nil)
	w.must(err)
	return &desk{world: w, client: &http.Client{Jar: jar}}
}

func (d *desk) site() string { return "http://" + d.Daemon.HTTP }

// send sends a request as the console's own pages do, and returns the page that it leads to.
func (d *desk) send(method, path string, form url.Values) (code int, page, at string, err error) {
	req, err := http.NewRequestWithContext(d.ctx, method, d.site()+"/console/"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", d.site())
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	d.pages.Write(text)
	return resp.StatusCode, string(text), resp.Request.URL.Path, err
}

// sees returns the page that a request leads to, which must be one.
func (d *desk) sees(method, path string, form url.Values) (page, at string) {
	d.t.Helper()
	code, page, at, err := d.send(method, path, form)
	d.must(err)
	if code != http.StatusOK {
		d.t.Fatalf("%s %s: status %d:\n%s", method, path, code, page)
	}
	return page, at
}

// form returns the form of a change, with a reason.
func (d *desk) form(page string) url.Values {
	form := url.Values{"reason": {"ticket 7"}}
	for _, field := range regexp.MustCompile(`type="hidden" name="([a-z_]+)" value="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		form.Set(field[1], html.UnescapeString(field[2])) // the last ones are those of the form itself
	}
	return form
}

// TestConsoleEndsASubscriber: who signs in to a real daemon ends a subscriber once, although the form
// is sent twice; the audit trail in Redis has who, why and the request; and the token is in no page, log
// or entry.
func TestConsoleEndsASubscriber(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	d := w.consoleDesk("operator")
	s := sessionOf(alice, "a-1")
	w.online(s)
	page, at := d.sees("POST", "signin", url.Values{"token": {planted}, "next": {"/console/subscribers/" + s.Inside.String() + "/end"}})
	if !strings.Contains(page, "1 subscriber would end") || !strings.HasSuffix(at, "/end") {
		t.Fatalf("at %s:\n%s", at, page)
	}
	form := d.form(page)
	for range 2 {
		if page, _ := d.sees("POST", "subscribers/"+s.Inside.String()+"/end", form); !strings.Contains(page, "1 subscriber ended.") {
			t.Errorf("the outcome:\n%s", page)
		}
	}
	w.must(w.Until(w.ctx, "the end of the subscriber", func() (bool, error) {
		page, _ := d.sees("GET", "subscribers/"+s.Inside.String(), nil)
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
	consoleURL, err := url.Parse(d.site() + "/console/")
	w.must(err)
	for _, secret := range []string{planted, d.client.Jar.Cookies(consoleURL)[0].Value} {
		for name, text := range map[string]string{"a page": d.pages.String(), "the log": w.Daemon.Log(), "the audit": entries, "metrics": metrics} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", name, secret)
			}
		}
	}
}

// TestConsoleChangeIsInterrupted: a stop of the daemon, and a kill, in the middle of a change of many
// subscribers. What is changed is in the audit trail and nothing else is; after a stop the browser is
// told; after the next start the old form changes nothing, and a new one changes the rest.
func TestConsoleChangeIsInterrupted(t *testing.T) {
	for round, interrupt := range map[string]func(*world){
		"stop": func(w *world) {
			code, err := w.Daemon.Stop()
			if w.must(err); code != 0 {
				w.t.Errorf("the daemon ends with %d", code)
			}
		},
		"kill": func(w *world) { w.must(w.Daemon.Kill()) },
	} {
		t.Run(round, func(t *testing.T) { interruptChange(t, interrupt) })
	}
}

func interruptChange(t *testing.T, interrupt func(*world)) {
	const many = 3000
	w := start(t, rig.Options{Memory: true, BlockSize: 64, Guard: "minimum: 1, nas_restart: 1%, window: 1h", LogLevel: "info",
		Lab: netlab.Options{Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}})
	d := w.consoleDesk("operator")
	store := redis.NewClient(&redis.Options{Network: "unix", Addr: w.Redis.Socket})
	t.Cleanup(func() { _ = store.Close() })
	const trail = "sessiond:{default}:audit"
	held := func() int {
		t.Helper()
		return strings.Count(w.ctl("-o", "json", "removal", "list", "--kind", "held", "--group", "default"), "\n")
	}
	signIn := func() string {
		t.Helper()
		page, _ := d.sees("POST", "signin", url.Values{"token": {planted}, "next": {"/console/removals/confirm?group=default"}})
		return page
	}
	_, err := acctload.Run(w.ctx, w.load(acctload.Interim, netip.MustParsePrefix("100.80.0.0/16"), many, func(o *acctload.Options) {
		o.Concurrency, o.Duration = 256, time.Millisecond
	}))
	w.must(err)
	w.countsOnline(many)
	w.must(w.Send(w.ctx, accountingOff(rig.NAS)))
	w.must(w.Until(w.ctx, "most removals to be held", func() (bool, error) {
		text, err := w.Daemon.Metric(w.ctx, `sessiond_removals_held{group="default",reason="nas_restart"}`)
		n, _ := strconv.Atoi(text)
		return n > many*9/10, err
	}))
	before, form := held(), d.form(signIn())
	written, err := store.XLen(w.ctx, trail).Result()
	w.must(err)
	type answer struct {
		code int
		page string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		a.code, a.page, _, a.err = d.send("POST", "removals/confirm", form)
		answered <- a
	}()
	w.must(w.Until(w.ctx, "the change to have begun", func() (bool, error) {
		n, err := store.XLen(w.ctx, trail).Result()
		return n > written, err
	}))
	interrupt(w)
	a := <-answered
	w.must(w.Daemon.Start(w.ctx))
	after := held()
	recorded := 0
	for line := range strings.Lines(w.ctl("-o", "json", "audit", "list", "--request-id", form.Get("request_id"))) {
		var e struct {
			Count  int
			Method string
		}
		w.must(json.Unmarshal([]byte(line), &e))
		if recorded += e.Count; e.Method != "ConfirmRemovals" {
			t.Errorf("entry %s", line)
		}
	}
	if before-after != recorded || recorded == 0 {
		t.Errorf("%d removals were held, then %d, and %d are recorded", before, after, recorded)
	}
	t.Logf("%d of %d were carried out; the browser got status %d, %v", recorded, before, a.code, a.err)
	if a.err == nil && a.code != http.StatusOK && !strings.Contains(a.page, "A part may be changed") {
		t.Errorf("the stop was answered with status %d:\n%s", a.code, a.page)
	}
	if code, page, _, err := d.send("POST", "removals/confirm", form); err != nil || code != http.StatusForbidden {
		t.Errorf("the old form: status %d, %v:\n%s", code, err, page)
	}
	if again := held(); again != after {
		t.Error("the old form changed something")
	}
	if page := signIn(); after > 0 {
		if page, _ := d.sees("POST", "removals/confirm", d.form(page)); !strings.Contains(page, " ended.") {
			t.Errorf("the rest:\n%s", page)
		}
	}
	if rest := held(); rest != 0 {
		t.Errorf("%d are held in the end", rest)
	}
	w.countsOnline(0)
	if out := w.ctl("audit", "verify"); strings.Count(out, "  none\n") != 2 {
		t.Errorf("audit verify:\n%s", out)
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
