package console

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// webBrowser is a real Chromium, with one page of the console for a beginning.
type webBrowser struct {
	t       *testing.T
	ctx     context.Context // of the first tab
	server  *httptest.Server
	backend *controltest.Backend
	streams atomic.Int32 // requests for the event stream
}

// browse starts a console over the backend, and a Chromium.
func browse(t *testing.T, b *controltest.Backend) *webBrowser {
	t.Helper()
	testenv.Require(t, testenv.Browser)
	w := &webBrowser{t: t, backend: b}
	c, err := New(optionsOf(b))
	if err != nil {
		t.Fatal(err)
	}
	pages := c.Handler()
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == Path+"live" {
			w.streams.Add(1)
		}
		pages.ServeHTTP(rw, r)
	}))
	var starts, stops uint64
	for i := range 13 * 60 / 5 { // some minutes of history
		starts, stops = starts+uint64(20+i/12*i%70), stops+uint64(14+i*i%50)
		c.history.add(controltest.Now.Add(time.Duration(i)*sampleEvery), Totals{
			Starts: starts, Stops: stops, CutBounds: []float64{0.001, 0.0025, 0.005, 0.01},
			CutCounts: []uint64{uint64(i), uint64(5 * i), uint64(7 * i), uint64(8 * i), uint64(8 * i)},
		})
	}
	t.Cleanup(func() {
		w.server.CloseClientConnections() // of streams
		w.server.Close()
	})
	w.start()
	return w
}

// start starts a Chromium, which ends with the test.
func (w *webBrowser) start() {
	w.t.Helper()
	allocator, end := chromedp.NewExecAllocator(w.t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true))...)
	ctx, cancel := chromedp.NewContext(allocator)
	w.t.Cleanup(func() {
		cancel()
		end()
	})
	w.ctx = w.watched(ctx)
	w.do(w.ctx, chromedp.Navigate("about:blank"))
}

// watched fails the test on an error that a tab of the browser reports: a script's, or a refusal by
// the content policy.
func (w *webBrowser) watched(tab context.Context) context.Context {
	chromedp.ListenTarget(tab, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			w.t.Errorf("exception: %s", e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError && !strings.Contains(e.Entry.Text, "status of 40") {
				w.t.Errorf("the browser says: %s (%s)", e.Entry.Text, e.Entry.URL)
			}
		case *page.EventJavascriptDialogOpening:
			w.t.Errorf("a script of others runs: %s", e.Message)
		}
	})
	return tab
}

// tab opens another tab.
func (w *webBrowser) tab() context.Context {
	ctx, cancel := chromedp.NewContext(w.ctx)
	w.t.Cleanup(cancel)
	return w.watched(ctx)
}

func (w *webBrowser) do(tab context.Context, actions ...chromedp.Action) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(tab, 60*time.Second)
	defer cancel()
	// The first use of a tab must not end with the time of this one.
	if chromedp.FromContext(tab).Target == nil {
		ctx = tab
	}
	if err := chromedp.Run(ctx, actions...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *webBrowser) open(tab context.Context, path string) {
	w.t.Helper()
	w.do(tab, chromedp.Navigate(w.server.URL+Path+path), chromedp.WaitReady("main"))
}

// value evaluates an expression in a tab.
func value[T any](w *webBrowser, tab context.Context, expression string) (v T) {
	w.t.Helper()
	w.do(tab, chromedp.Evaluate(expression, &v))
	return v
}

// sees waits until an expression is true in a tab.
func (w *webBrowser) sees(tab context.Context, expression string) {
	w.t.Helper()
	testenv.Eventually(w.t, expression, func() bool { return value[bool](w, tab, expression) })
}

// picture writes a picture of a tab to the folder that SCREENSHOTS names.
func (w *webBrowser) picture(tab context.Context, name string) {
	w.t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	var png []byte
	w.do(tab, chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// everyPage are the pages of a scene, by name.
var everyPage = []struct{ name, path string }{
	{"overview", ""}, {"prefixes", "outside"}, {"outside", "outside/198.51.100.1"}, {"subscribers", "subscribers"},
	{"customer", "subscribers/100.64.0.7"}, {"offline", "subscribers/100.64.0.9"}, {"found", "search?q=198.51.100.1:1100"},
	{"events", "events"}, {"error", "search?q="}, {"removals", "removals"}, {"settings", "settings"},
}

// busyScene is a scene with blocks in every state.
func busyScene() *controltest.Backend {
	b := controltest.Scene()
	states := []nat.State{nat.Active, nat.Active, nat.Active, nat.Held, nat.Draining, nat.Active, nat.Cut, nat.Held}
	for i := range 60 {
		l := controltest.Scene().Leases[0]
		l.First = nat.Port(8192 + 512*i)
		l.Last, l.State = l.First+511, states[i%len(states)]
		b.Leases = append(b.Leases, l)
	}
	return b
}

// TestBrowserPages: each page has a name, headings, landmarks, and a name for each control; its text
// has enough contrast in light and dark; it fits a telephone; and it works without scripts.
func TestBrowserPages(t *testing.T) {
	t.Parallel()
	w := browse(t, busyScene())
	for _, mode := range everyMode {
		w.emulate(mode)
		for _, p := range everyPage {
			w.open(w.ctx, p.path)
			if mode != "plain" {
				w.checkPage(mode + " " + p.name)
				w.checkTree(mode + " " + p.name)
			} else if text := w.text("body"); strings.Contains(text, "connecting again") || len(text) < 200 {
				t.Errorf("%s without scripts says: %s", p.name, text)
			}
			w.picture(w.ctx, mode+"-"+p.name)
		}
	}
	w.do(w.ctx, emulation.SetScriptExecutionDisabled(false))
	w.open(w.ctx, "")
	w.sees(w.ctx, `performance.getEntriesByName("first-contentful-paint").length === 1`)
	t.Logf("the overview is painted after %.0f ms", value[float64](w, w.ctx, `performance.getEntriesByName("first-contentful-paint")[0].startTime`))
}

// everyMode are ways to see a page.
var everyMode = []string{"light", "dark", "phone", "plain"}

// emulate makes the browser one of everyMode; "plain" is one without scripts.
func (w *webBrowser) emulate(mode string) {
	w.t.Helper()
	screen := emulation.SetDeviceMetricsOverride(1280, 900, 1, false)
	if mode == "phone" {
		screen = emulation.SetDeviceMetricsOverride(360, 740, 2, true)
	}
	w.do(w.ctx,
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: map[bool]string{true: "dark", false: "light"}[mode == "dark"]}}),
		screen, emulation.SetScriptExecutionDisabled(mode == "plain"),
	)
}

// text returns the text of an element, without a script.
func (w *webBrowser) text(selector string) string {
	w.t.Helper()
	var outer string
	w.do(w.ctx, chromedp.OuterHTML(selector, &outer))
	return words(w.t, outer)
}

// checkPage checks width and contrast.
func (w *webBrowser) checkPage(name string) {
	w.t.Helper()
	if over := value[int](w, w.ctx, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
		w.t.Errorf("%s is %d pixels wider than the screen", name, over)
	}
	if faint := value[[]string](w, w.ctx, faintTexts); len(faint) > 0 {
		w.t.Errorf("%s has texts with less contrast than 4.5 (WCAG 2.2 section 1.4.3): %v", name, faint)
	}
}

// faintTexts finds the texts with too little contrast to what is behind them.
const faintTexts = `(() => {
	const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
	const light = (c) => {
		const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const c = parse(getComputedStyle(e).backgroundColor);
			if (c.length === 3 || c[3] > 0) return c.slice(0, 3);
		}
		return [255, 255, 255];
	};
	const faint = [];
	for (const e of document.body.querySelectorAll("*")) {
		if (e.closest("svg, noscript") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
		const a = light(parse(getComputedStyle(e).color).slice(0, 3)), b = light(ground(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) faint.push(e.textContent.trim().slice(0, 40) + " " + ratio.toFixed(2));
	}
	return faint;
})()`

// named are the roles whose nodes need a name.
var named = map[string]bool{
	"button": true, "link": true, "searchbox": true, "textbox": true, "image": true, "img": true, "region": true, "navigation": true,
	"heading": true, "columnheader": true, "rowheader": true, "RootWebArea": true,
}

// checkTree checks the accessibility tree, as a screen reader gets it.
func (w *webBrowser) checkTree(name string) {
	w.t.Helper()
	var tree struct {
		Nodes []treeNode `json:"nodes"`
	}
	w.do(w.ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		return chromedp.FromContext(ctx).Target.Execute(ctx, "Accessibility.getFullAXTree", nil, &tree)
	}))
	roles := map[string]int{}
	level := 0
	for _, n := range tree.Nodes {
		if n.Ignored {
			continue
		}
		role := n.Role.text()
		roles[role]++
		if named[role] && n.Name.text() == "" {
			w.t.Errorf("%s: a %s has no name", name, role)
		}
		if role != "heading" {
			continue
		}
		for _, p := range n.Properties {
			if p.Name != "level" {
				continue
			}
			next, err := strconv.Atoi(p.Value.text())
			if err != nil || next > level+1 {
				w.t.Errorf("%s: a heading of level %d follows one of level %d", name, next, level)
			}
			level = next
		}
	}
	for role, want := range map[string]int{"main": 1, "banner": 1, "contentinfo": 1, "navigation": 1, "search": 1, "searchbox": 1} {
		if roles[role] != want {
			w.t.Errorf("%s has %d nodes of role %s, want %d: %v", name, roles[role], role, want, roles)
		}
	}
	if roles["heading"] == 0 {
		w.t.Errorf("%s has no heading", name)
	}
}

// treeNode is a node of the accessibility tree. The types of the library refuse names that a newer
// Chromium has.
type treeNode struct {
	Ignored    bool      `json:"ignored"`
	Role       treeValue `json:"role"`
	Name       treeValue `json:"name"`
	Properties []struct {
		Name  string    `json:"name"`
		Value treeValue `json:"value"`
	} `json:"properties"`
}

type treeValue struct {
	Value any `json:"value"`
}

func (v treeValue) text() string {
	if v.Value == nil {
		return ""
	}
	return strings.TrimSpace(fmt.Sprint(v.Value))
}

// TestBrowserChanges: a person signs in, sees what the end of a subscriber would be, ends it, sees it
// gone, and signs out, also without scripts; and every page of changes can be read by everybody.
func TestBrowserChanges(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Browser)
	b := controltest.Scene()
	s := siteOf(t, b, false, func(o *Options) { o.Anonymous = access.None })
	w := &webBrowser{t: t, backend: b, server: s.server}
	w.start()
	for _, mode := range []string{"light", "plain"} {
		w.emulate(mode)
		b.SetOnline(controltest.Scene().Online...)
		w.open(w.ctx, "subscribers/100.64.0.7")
		w.reads("h1", "Sign in")
		w.do(w.ctx, chromedp.SendKeys("#token", "wrong-token-of-a-person\r"))
		w.reads("main", "This token is not known.")
		w.picture(w.ctx, mode+"-signin-refused")
		w.do(w.ctx, chromedp.SendKeys("#token", tokensOf[access.Admin]), chromedp.Click(".entry button"))
		w.reads("header", "Signed in as token:admin , admin")
		w.do(w.ctx, chromedp.Click(`a[href="/console/subscribers/100.64.0.7/end"]`))
		w.reads("main", "1 subscriber would end, with 2 sessions.")
		w.do(w.ctx, chromedp.SendKeys("#reason", " "), chromedp.Click("button.change"))
		w.reads("main", "reason: is required")
		w.picture(w.ctx, mode+"-end-without-reason")
		w.do(w.ctx, chromedp.SendKeys("#reason", "ticket 7"), chromedp.Click("button.change"))
		w.reads("main", "1 subscriber ended.")
		w.picture(w.ctx, mode+"-done")
		w.do(w.ctx, chromedp.Click("main a"))
		w.reads("main", "Nobody is online at this address.")
		w.do(w.ctx, chromedp.Click(".visitor button"))
		w.reads("h1", "Sign in")
	}
	if n := len(b.Orders); n != 2 || b.Orders[0].Reason != "ticket 7" || b.Orders[1].Reason != "ticket 7" {
		t.Fatalf("%d orders, the last is %+v", n, b.Orders[n-1])
	}
	b.SetOnline(controltest.Scene().Online...)
	for _, mode := range []string{"light", "phone"} { // dark has the same markup, and the colors of TestBrowserPages
		w.emulate(mode)
		w.open(w.ctx, "signin")
		w.checkAll(mode + "-signin")
		w.do(w.ctx, chromedp.SendKeys("#token", tokensOf[access.Admin]), chromedp.Click(".entry button"))
		w.reads("header", "Signed in")
		for _, path := range []string{
			"subscribers/100.64.0.7", "subscribers/100.64.0.7/end", "subscribers/100.64.0.7/terminate?remote=203.0.113.5", "removals", "settings",
			"outside", "pools/drain?group=default&prefix=198.51.100.0%2F28", "done/x",
		} {
			w.open(w.ctx, path)
			w.checkAll(mode + "-" + strings.NewReplacer("/", "-", "?", "-").Replace(path))
		}
		w.do(w.ctx, chromedp.Click(".visitor button"))
		w.reads("h1", "Sign in")
	}
}

// reads waits until an element has a text, without a script.
func (w *webBrowser) reads(selector, want string) {
	w.t.Helper()
	testenv.Eventually(w.t, fmt.Sprintf("%q in %s", want, selector), func() bool {
		var outer string
		err := chromedp.Run(w.ctx, chromedp.OuterHTML(selector, &outer)) // fails while the next page comes
		return err == nil && strings.Contains(words(w.t, outer), want)
	})
}

// checkAll checks a page, and makes a picture of it.
func (w *webBrowser) checkAll(name string) {
	w.t.Helper()
	w.checkPage(name)
	w.checkTree(name)
	w.picture(w.ctx, name)
}

// TestBrowserIsLive: facts, events and the parts of a page that an event is about become current by
// themselves, also after the server was away.
func TestBrowserIsLive(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	w := browse(t, b)
	w.open(w.ctx, "")
	w.sees(w.ctx, `document.getElementById("live-state").textContent === "live"`)
	b.SetStatus(func(s *inspect.Status) { s.Groups[0].Subscribers = 1_234_567; s.NotReady = "redis: away" })
	w.sees(w.ctx, `document.getElementById("fact-online").textContent === "1,234,567"`)
	w.sees(w.ctx, `document.getElementById("fact-ready").textContent === "not ready: redis: away" && document.getElementById("fact-ready").dataset.level === "bad"`)

	w.open(w.ctx, "subscribers/100.64.0.7")
	w.sees(w.ctx, `document.getElementById("live-state").textContent === "live"`)
	online := controltest.Scene().Online[0]
	b.SetOnline()
	b.Publish(inspect.Event{At: controltest.Now, Kind: inspect.EventDeleted, End: subscriber.End{Reason: 1}, Subscriber: online})
	w.sees(w.ctx, `document.querySelector("main").textContent.includes("Nobody is online at this address.")`)

	w.server.CloseClientConnections()
	w.sees(w.ctx, `document.getElementById("live-state").textContent !== "live"`)
	w.sees(w.ctx, `document.getElementById("live-state").textContent === "live"`)
}

// TestBrowserTabs: eight tabs are live at once, with one stream, although a browser has six
// connections to a host. A ninth page still loads.
func TestBrowserTabs(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	w := browse(t, b)
	tabs := []context.Context{w.ctx}
	for len(tabs) < 8 {
		tabs = append(tabs, w.tab())
	}
	for _, tab := range tabs {
		w.open(tab, "events")
		w.sees(tab, `document.getElementById("live-state").textContent === "live"`)
	}
	for _, user := range []string{"first", "second"} {
		publish(t, b, 1, user)
		for _, tab := range tabs {
			w.sees(tab, fmt.Sprintf(`document.querySelector("#events tbody").rows.length > 0 && document.querySelector("#events tbody").rows[0].cells[3].textContent === %q`, user))
		}
	}
	w.open(tabs[0], "subscribers")
	if n := w.streams.Load(); n != 1 {
		t.Errorf("%d streams for eight tabs", n)
	}
	w.picture(tabs[1], "events-live")
}

// TestBrowserPause: the table of events stands still while the reader says so.
func TestBrowserPause(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	w := browse(t, b)
	w.open(w.ctx, "events")
	w.sees(w.ctx, `document.getElementById("live-state").textContent === "live"`)
	publish(t, b, 1, "before")
	w.sees(w.ctx, `document.querySelector("#events tbody").rows.length === 1`)
	w.do(w.ctx, chromedp.Click("#pause"))
	second := w.tab()
	w.open(second, "events")
	w.sees(second, `document.getElementById("live-state").textContent === "live"`)
	publish(t, b, 1, "meanwhile")
	w.sees(second, `document.querySelector("#events tbody").rows.length === 1`)
	if n := value[int](w, w.ctx, `document.querySelector("#events tbody").rows.length`); n != 1 {
		t.Errorf("the table has %d rows", n)
	}
	if pressed := value[string](w, w.ctx, `document.getElementById("pause").getAttribute("aria-pressed")`); pressed != "true" {
		t.Errorf("aria-pressed is %s", pressed)
	}
}

// TestBrowserHostileTexts: a text of RADIUS is a text in every page and in the table of events.
func TestBrowserHostileTexts(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	w := browse(t, b)
	for _, text := range hostile {
		s := controltest.Scene().Online[0]
		s.UserName, s.NAS, s.AcctSessionID = text, text, text
		b.SetOnline(s)
		for _, path := range []string{"subscribers", "subscribers/100.64.0.7"} {
			w.open(w.ctx, path)
			if over := value[int](w, w.ctx, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
				t.Errorf("%q makes %s %d pixels wider than the screen", text, path, over)
			}
		}
		w.open(w.ctx, "events")
		w.sees(w.ctx, `document.getElementById("live-state").textContent === "live"`)
		publish(t, b, 1, text)
		w.sees(w.ctx, `document.querySelector("#events tbody").rows.length === 1`)
		if n := value[int](w, w.ctx, `document.querySelectorAll("#events tbody script, #events tbody img, #events tbody style").length`); n != 0 {
			t.Errorf("%q became markup", text)
		}
	}
	w.picture(w.ctx, "hostile-events")
}

// TestBrowserKeyboard: the first key leads past the navigation, and focus can be seen.
func TestBrowserKeyboard(t *testing.T) {
	t.Parallel()
	w := browse(t, controltest.Scene())
	w.open(w.ctx, "subscribers")
	w.do(w.ctx, chromedp.KeyEvent("\t"))
	if text := value[string](w, w.ctx, "document.activeElement.textContent"); text != "Skip to content" {
		t.Errorf("the first key leads to %q", text)
	}
	if left := value[int](w, w.ctx, "document.activeElement.getBoundingClientRect().left"); left < 0 {
		t.Error("what has the focus is not to be seen")
	}
	w.do(w.ctx, chromedp.KeyEvent("\r"))
	w.sees(w.ctx, `document.activeElement.id === "content"`)
	for range 4 {
		w.do(w.ctx, chromedp.KeyEvent("\t"))
		if style := value[string](w, w.ctx, "getComputedStyle(document.activeElement).outlineStyle"); style != "solid" {
			t.Errorf("focus on %s has outline %q", value[string](w, w.ctx, "document.activeElement.outerHTML"), style)
		}
	}
}
