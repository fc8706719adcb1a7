package console

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// fixedMachine is a machine with given counts.
type fixedMachine struct {
	kernel Kernel
	totals Totals
	layout Layout
}

func (m *fixedMachine) Kernel() Kernel { return m.kernel }
func (m *fixedMachine) Totals() Totals { return m.totals }
func (m *fixedMachine) Layout(group string) (Layout, bool) {
	return m.layout, group == "default" && m.layout.BlockSize > 0
}

func machineOf() *fixedMachine {
	return &fixedMachine{
		kernel: Kernel{Entries: 1200, Limit: 262144, Barrier: true},
		totals: Totals{Starts: 10, Stops: 4, CutBounds: []float64{0.001, 0.01}, CutCounts: []uint64{3, 4, 4}},
		layout: Layout{First: 1024, Last: 65535, BlockSize: 512},
	}
}

// noTokens knows no token.
type noTokens struct{}

func (noTokens) TokenActor(access.Token, *access.Caller) (access.Actor, error) {
	return access.Actor{}, access.ErrTokenUnknown
}

// optionsOf are those of a console over a backend of tests, where everybody reads and nobody signs
// in.
func optionsOf(b *controltest.Backend) Options {
	return Options{
		Subscribers: b, Nat: b, Sessions: b, Controls: b, Removals: b, Machine: machineOf(),
		Tokens: noTokens{}, Calls: control.Within{}, Anonymous: access.Viewer,
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return controltest.Now },
	}
}

// serve starts a console until the test ends, and returns its address.
func serve(t testing.TB, o Options) (*Console, *httptest.Server) {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c.Handler())
	t.Cleanup(s.Close)
	return c, s
}

// get returns a page.
func get(t testing.TB, s *httptest.Server, path string) (code int, body string) {
	t.Helper()
	resp, err := s.Client().Get(s.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// words returns the text of a page, as a person reads it.
func words(t testing.TB, page string) string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script" {
			b.WriteString(n.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestPages(t *testing.T) {
	t.Parallel()
	_, s := serve(t, optionsOf(controltest.Scene()))
	for _, c := range []struct {
		path string
		code int
		want []string // texts in the page
	}{
		{"", 200, []string{"Online 2", "Waiting for a block 1", "Used 1 (0.0 %)", "Held, in quarantine 2", "Free 2,013 (99.9 %)", "subscriber ends on", "waiting for a person 0", "cgn1 ready", "Redis records accounting", "Database whole", "1,200 of 262,144 (0 %)", "Barrier behind nftables in place", "20s ago, differences: 1"}},
		{"outside", 200, []string{"198.51.100.0/28", "1 blocks used, 2 held, 2,013 free, of 2,016", "198.51.100.15"}},
		{"outside?from=198.51.100.9", 200, []string{"198.51.100.9", "198.51.100.15"}},
		{"outside?from=x", 400, []string{`"x" is no IPv4 address; write one such as 198.51.100.1`}},
		{"outside/198.51.100.1", 200, []string{"active: 1", "held: 2", "free: 123", "1024-1535 active 100.64.0.7 alice", "1536-2047,4096-4607 held 100.64.0.9 carol", "12 free blocks of the group are in quarantine"}},
		{"outside/198.51.100.2", 200, []string{"free: 126", "No block of this address is in use."}},
		{"outside/203.0.113.1", 404, []string{"203.0.113.1 is in no outside prefix: not found"}},
		{"subscribers", 200, []string{"100.64.0.7 alice bng1.example 198.51.100.1 1024-1535 2", "100.64.0.8 bob bng1.example waits for a block"}},
		{"subscribers?user=alice", 200, []string{"Online with the user name alice", "100.64.0.7 alice"}},
		{"subscribers?user=nobody", 200, []string{"Nobody with this user name is online."}},
		{"subscribers/100.64.0.7", 200, []string{"Online. Session", "A guard suspended the removal until a person decides, for EXPIRED", "User alice", "NAS bng1.example at 192.0.2.1", "Up, from the subscriber 4.8 MiB", "TCP 1, UDP 0, ICMP 1", "(1d2h ago) The session began.", "(in 40m) The record expires", "TCP 100.64.0.7:40000 198.51.100.1:1100 203.0.113.5:443 ESTABLISHED inside 96.0 KiB", "ICMP 100.64.0.7:77"}},
		{"subscribers/100.64.0.9", 200, []string{"Nobody is online at this address.", "1536-2047,4096-4607 held carol", "14 sessions were deleted, and the index proved that none was left", "(in 1m30s) The quarantine of ports 1536-2047,4096-4607 ends"}},
		{"subscribers/100.64.0.20", 200, []string{"the sessions wait for the subscriber to come back, for STOP"}},
		{"subscribers/x", 400, []string{`"x" is no IPv4 address`}},
		{"search?q=alice", 200, []string{"Online with the user name alice"}},
		{"search?q=+100.64.0.7+", 200, []string{"Subscriber 100.64.0.7"}},
		{"search?q=user:100.64.0.7", 200, []string{"Nobody with this user name is online."}},
		{"search?q=198.51.100.1", 200, []string{"Blocks of 198.51.100.1"}},
		{"search?q=198.51.100.1:1100", 200, []string{"The port belongs to 100.64.0.7 , user alice"}},
		{"search?q=198.51.100.1:60000", 404, []string{"not found"}},
		{"search?q=", 400, []string{"Nothing was written."}},
		{"events", 200, []string{"sessionctl watch"}},
		{"removals", 200, []string{"100.64.0.7 alice bng1.example EXPIRED"}},
		{"settings", 200, []string{"subscriber_session_removal is on. With on, the sessions of a subscriber are removed", "idle_timeouts.udp 5m", "idle_timeouts.tcp_partial_open as idle_timeouts.tcp_transitory"}},
		{"signin", 200, []string{"A token is a line of a token_file in grpc.roles"}},
		{"nothing", 404, []string{"There is no such page"}},
	} {
		code, body := get(t, s, Path+c.path)
		text := words(t, body)
		if code != c.code {
			t.Errorf("%s: status %d, want %d", c.path, code, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing in:\n%s", c.path, want, text)
			}
		}
	}
}

// TestHeldRemovals: removals that a guard suspends are counted by group and reason, with links to decide
// for those who may.
func TestHeldRemovals(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Glance.Groups[0].RemovalsHeld = map[subscriber.Reason]int{subscriber.ReasonExpired: 1234, subscriber.ReasonNASRestart: 2, subscriber.ReasonStop: 0}
	s := siteOf(t, b, false, nil)
	for role := access.None; role <= access.Admin; role++ {
		body := s.signedIn(role).get("removals").body
		text := words(t, body)
		decision := "by an operator"
		if role >= access.Operator {
			decision = "Carry out , refuse"
		}
		if want := "default EXPIRED 1,234 " + decision + " default NAS_RESTART 2 " + decision + " Subscribers"; !strings.Contains(text, want) {
			t.Errorf("%s: %q is missing in:\n%s", role, want, text)
		}
		for _, link := range []string{"/console/removals/confirm?cause=NAS_RESTART&amp;group=default", "/console/removals/refuse?group=default&amp;inside=100.64.0.7"} {
			if got := strings.Contains(body, link); got != (role >= access.Operator) {
				t.Errorf("%s: link %s is there: %v", role, link, got)
			}
		}
	}
}

// sureStatus has a status even where all else fails, as the daemon does.
type sureStatus struct{ *controltest.Backend }

func (s sureStatus) Status(context.Context) (inspect.Status, error) { return s.Glance, nil }

// TestFailuresAreTold: a page says that the daemon is not ready, or the database away. The overview
// is there in any case.
func TestFailuresAreTold(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	o := optionsOf(b)
	o.Controls = sureStatus{b}
	_, s := serve(t, o)
	for want, err := range map[int]error{http.StatusServiceUnavailable: inspect.ErrNotReady, http.StatusInternalServerError: errors.New("secret cause")} {
		b.Err = err
		for _, path := range []string{"subscribers", "subscribers/100.64.0.7", "outside/198.51.100.1", "search?q=198.51.100.1:1100"} {
			if code, body := get(t, s, Path+path); code != want || strings.Contains(body, "secret cause") {
				t.Errorf("%s: status %d after %v:\n%s", path, code, err, body)
			}
		}
	}
	b.Err = inspect.ErrNotReady
	b.Glance.NotReady = "redis: connection refused"
	if code, body := get(t, s, Path); code != http.StatusOK || !strings.Contains(words(t, body), "not ready: redis: connection refused") {
		t.Errorf("overview: status %d:\n%s", code, words(t, body))
	}
}

// hostile are octets that a RADIUS packet may have in a text.
var hostile = []string{
	"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "'-alert(1)-'", "{{.}}", "javascript:alert(1)",
	"\u202egnp.exe", "a\u2066b\u2069", strings.Repeat("\x00\xff", 126), strings.Repeat("Z\u0335", 80), "</title></svg><style>*{display:none}", "\x1b[2J", "]]>--><!--",
}

// TestHostileTexts: nothing that RADIUS says becomes markup, or an octet that changes what is around.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	for _, text := range hostile {
		b := controltest.Scene()
		b.Online[0].UserName, b.Online[0].NAS, b.Online[0].AcctSessionID, b.Online[0].CallingStationID = text, text, text, text
		b.Leases[0].UserName = text
		_, s := serve(t, optionsOf(b))
		for _, path := range []string{"subscribers", "subscribers/100.64.0.7", "outside/198.51.100.1", "search?q=198.51.100.1:1100"} {
			_, body := get(t, s, Path+path)
			checkMarkup(t, path, body)
			if strings.ContainsAny(body, "\u202e\u2066\u2069\x00\x1b") {
				t.Errorf("%s: %q is in the page as it is", path, text)
			}
		}
	}
}

// FuzzPages: no request makes markup, or fails the server.
func FuzzPages(f *testing.F) {
	for _, text := range append(hostile, "alice", "100.64.0.7", "198.51.100.1:1100", "user:x", "%41", "1.2.3.4:99999", "::1", "[::1]:80") {
		f.Add(text)
	}
	_, s := serve(f, optionsOf(controltest.Scene()))
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range []string{"search?q=", "subscribers?user=", "subscribers?after=", "subscribers?group=", "outside?from=", "subscribers/", "outside/", "assets/"} {
			path := Path + r + queryEscape(text)
			w := httptest.NewRecorder()
			req := httptest.NewRequest("GET", "/", nil)
			req.Host = "localhost"
			u, err := req.URL.Parse(path)
			if err != nil {
				continue
			}
			req.URL = u
			s.Config.Handler.ServeHTTP(w, req)
			if w.Code >= 500 {
				t.Errorf("%s: status %d", path, w.Code)
			}
			if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && w.Code != http.StatusSeeOther && w.Code/100 != 3 {
				checkMarkup(t, path, w.Body.String())
			}
		}
	})
}

var (
	idValue   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	elements  = "html head meta title link script body a header p nav ul li form label input button main h1 h2 footer bdi code div section dl dt dd figure svg polyline figcaption span g rect path circle table thead tbody tr th td ol time noscript"
	attribute = "required aria-invalid aria-describedby lang charset name content rel href type src defer id class aria-label aria-labelledby aria-current aria-hidden aria-pressed role action method for value autocomplete autocapitalize spellcheck maxlength placeholder hidden tabindex data-section data-live data-level data-outside data-inside viewbox width height x y cx cy r d points transform preserveaspectratio scope datetime"
)

// checkMarkup checks that a page has only what the templates write: no style, no script but the one
// file, no handler; and that each id is there once.
func checkMarkup(t *testing.T, path, page string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if !strings.Contains(" "+elements+" ", " "+n.Data+" ") {
			t.Errorf("%s has an element %s", path, n.Data)
		}
		for _, a := range n.Attr {
			key := strings.ToLower(a.Key)
			switch {
			case !strings.Contains(" "+attribute+" ", " "+key+" "):
				t.Errorf("%s: element %s has the attribute %s", path, n.Data, a.Key)
			case (key == "href" || key == "src" || key == "action") && !strings.HasPrefix(a.Val, Path) && !strings.HasPrefix(a.Val, "#"):
				t.Errorf("%s: element %s leads to %s", path, n.Data, a.Val)
			case key == "id" && (ids[a.Val] || !idValue.MatchString(a.Val)):
				t.Errorf("%s has the id %q twice, or it is none", path, a.Val)
			case key == "id":
				ids[a.Val] = true
			}
		}
		if n.Data == "script" && n.FirstChild != nil {
			t.Errorf("%s has a script in it: %s", path, n.FirstChild.Data)
		}
	}
}

// TestCallers: requests that another site makes a browser send are refused.
func TestCallers_I10(t *testing.T) {
	t.Parallel()
	o := optionsOf(controltest.Scene())
	o.Hosts = []string{"CGN1.noc.example"}
	_, s := serve(t, o)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, c := range []struct {
		name, host string
		header     string // "Name: value; Name: value"
		path       string
		want       int
	}{
		{"the address itself", "", "", "", 200},
		{"localhost", "localhost:" + port, "", "", 200},
		{"another loopback address", "127.9.9.9", "", "", 200},
		{"IPv6 loopback", "[::1]:" + port, "", "", 200},
		{"a configured name", "cgn1.noc.example", "", "", 200},
		{"a configured name with a dot, by a proxy", "Cgn1.NOC.example.:443", "", "", 200},
		{"a name that leads here (DNS rebinding)", "attacker.example:" + port, "", "", 421},
		{"a name that begins like one", "localhost.attacker.example", "", "", 421},
		{"another address", "192.0.2.1:" + port, "", "", 421},
		{"its own page", "", "Origin: http://HOST; Sec-Fetch-Site: same-origin; Sec-Fetch-Mode: cors", "live", 200},
		{"a typed address", "", "Sec-Fetch-Site: none; Sec-Fetch-Mode: navigate; Sec-Fetch-Dest: document", "", 200},
		{"a link of another site", "", "Sec-Fetch-Site: cross-site; Sec-Fetch-Mode: navigate; Sec-Fetch-Dest: document", "", 200},
		{"a frame of another site", "", "Sec-Fetch-Site: cross-site; Sec-Fetch-Mode: navigate; Sec-Fetch-Dest: iframe", "", 403},
		{"a picture of another site", "", "Sec-Fetch-Site: cross-site; Sec-Fetch-Mode: no-cors; Sec-Fetch-Dest: image", "", 403},
		{"a stream of another port of this host", "", "Sec-Fetch-Site: same-site; Sec-Fetch-Mode: cors", "live", 403},
		{"a forged origin", "", "Origin: https://attacker.example", "", 403},
		{"no origin", "", "Origin: null", "", 403},
		{"an origin that begins like ours", "", "Origin: http://HOST.attacker.example", "", 403},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		req, err := http.NewRequestWithContext(ctx, "GET", s.URL+Path+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			req.Host = c.host
		}
		host := req.Host
		if host == "" {
			host = req.URL.Host
		}
		for pair := range strings.SplitSeq(c.header, "; ") {
			if name, value, ok := strings.Cut(pair, ": "); ok {
				req.Header.Set(name, strings.ReplaceAll(value, "HOST", host))
			}
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if resp.StatusCode != c.want {
			t.Errorf("%s: status %d, want %d", c.name, resp.StatusCode, c.want)
		}
		cancel()
		_ = resp.Body.Close()
	}
}

// TestNothingChanges: no method but those that read is served to who has not signed in.
func TestNothingChanges(t *testing.T) {
	t.Parallel()
	_, s := serve(t, optionsOf(controltest.Scene()))
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		for _, path := range []string{"", "subscribers", "subscribers/100.64.0.7", "outside", "search", "events", "live", "assets/console.js", "subscribers/100.64.0.7/end", "settings/removal", "signout"} {
			req, err := http.NewRequest(method, s.URL+Path+path, strings.NewReader("x=1"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("%s %s: status %d", method, path, resp.StatusCode)
			}
		}
	}
}

// TestHeaders: every answer forbids what is written into a page, frames, and copies.
func TestHeaders(t *testing.T) {
	t.Parallel()
	_, s := serve(t, optionsOf(controltest.Scene()))
	for _, path := range []string{"", "subscribers", "nothing", "assets/console.css", "assets/nothing", "search?q="} {
		resp, err := s.Client().Get(s.URL + Path + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if cache := resp.Header.Get("Cache-Control"); cache != "no-store" && (cache != "no-cache" || !strings.HasPrefix(path, "assets/")) {
			t.Errorf("%s: Cache-Control is %q", path, cache)
		}
	}
}

// TestAssets: an asset that a browser has is not sent again.
func TestAssets(t *testing.T) {
	t.Parallel()
	_, s := serve(t, optionsOf(controltest.Scene()))
	for name, kind := range map[string]string{"console.js": "text/javascript; charset=utf-8", "console.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"} {
		resp, err := s.Client().Get(s.URL + Path + "assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); got != kind {
			t.Errorf("%s is of type %q", name, got)
		}
		req, _ := http.NewRequest("GET", s.URL+Path+"assets/"+name, nil)
		req.Header.Set("If-None-Match", resp.Header.Get("ETag"))
		again, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = again.Body.Close()
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("%s is sent again: status %d", name, again.StatusCode)
		}
	}
}

// TestLongLists: a list continues on further pages, and the pages have each row once.
func TestLongLists(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Online = nil
	first := netip.MustParseAddr("100.64.1.0")
	for a := first; len(b.Online) < 250; a = a.Next() {
		s := controltest.Scene().Online[1]
		s.Inside = a
		b.Online = append(b.Online, s)
	}
	_, s := serve(t, optionsOf(b))
	seen := map[string]int{}
	next := regexp.MustCompile(`rel="next" href="([^"]*)"`)
	pages := 0
	for path := Path + "subscribers"; path != "" && pages < 10; pages++ {
		_, body := get(t, s, path)
		for _, m := range regexp.MustCompile(`href="/console/subscribers/([0-9.]+)"`).FindAllStringSubmatch(body, -1) {
			seen[m[1]]++
		}
		link := next.FindStringSubmatch(body)
		path = ""
		if link != nil {
			path = html.UnescapeString(link[1])
		}
	}
	if len(seen) != len(b.Online) {
		t.Errorf("%d subscribers are listed, want %d", len(seen), len(b.Online))
	}
	for a, n := range seen {
		if n != 1 {
			t.Errorf("%s is listed %d times", a, n)
		}
	}
}

// TestManySessions: a page lists so many sessions, and says that there are more.
func TestManySessions(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	for len(b.Flows) < 3*sessionsOnPage {
		b.Flows = append(b.Flows, b.Flows[0])
	}
	_, s := serve(t, optionsOf(b))
	_, body := get(t, s, Path+"subscribers/100.64.0.7")
	if n := strings.Count(body, "203.0.113.5:443"); n > sessionsOnPage || n < sessionsOnPage-1 {
		t.Errorf("%d sessions are listed", n)
	}
	if text := words(t, body); !strings.Contains(text, "There are more. sessionctl session list --inside 100.64.0.7 lists all.") {
		t.Errorf("nothing says that there are more:\n%s", text)
	}
}

// TestBlocksOf: blocks are aligned and whole, as the engine divides an address, and each has the
// binding that has it.
func TestBlocksOf(t *testing.T) {
	t.Parallel()
	grown := controltest.Scene().Leases[1]
	for _, c := range []struct {
		layout      Layout
		n           int
		first, last nat.Port
		used        int
	}{
		{Layout{1024, 65535, 512}, 126, 1024, 65535, 2},
		{Layout{1030, 65000, 512}, 123, 1536, 65023, 2},
		{Layout{1024, 65535, 256}, 252, 1024, 65535, 4},
		{Layout{60000, 60100, 512}, 0, 0, 0, 0},
	} {
		blocks := blocksOf(c.layout, []inspect.Binding{grown})
		used := 0
		for i := range blocks {
			if blocks[i].Binding != nil {
				used++
			}
		}
		if len(blocks) != c.n || used != c.used {
			t.Errorf("%+v: %d blocks, %d used", c.layout, len(blocks), used)
			continue
		}
		if c.n > 0 && blocks[0].First != c.first {
			t.Errorf("%+v: the first block is %v", c.layout, blocks[0])
		}
		for i := range blocks {
			if int(blocks[i].First)%c.layout.BlockSize != 0 || blocks[i].Size() != c.layout.BlockSize || blocks[i].Last > c.layout.Last {
				t.Errorf("%+v: block %v", c.layout, blocks[i])
			}
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("no options: %v", err)
	}
}

// queryEscape is like url.QueryEscape, but leaves the octets that a URL may have.
func queryEscape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c > ' ' && c < 0x7f && c != '%' && c != '#' {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + string("0123456789ABCDEF"[c>>4]) + string("0123456789ABCDEF"[c&15]))
		}
	}
	return b.String()
}
