package system

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestConsole: the pages of a real daemon show a subscriber, the block that it has, and its end as it
// happens; and none of its secrets.
func TestConsole(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	page := func(path string, want ...string) {
		t.Helper()
		code, body, err := w.Daemon.Get(w.ctx, "/console/"+path)
		w.must(err)
		if code != http.StatusOK {
			t.Errorf("%s: status %d", path, code)
		}
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s: %q is missing in:\n%s", path, text, body)
			}
		}
		if strings.Contains(body, rig.Secret) {
			t.Errorf("%s has the shared secret", path)
		}
	}
	s := sessionOf(alice, "a-1")
	b := w.online(s)
	page("", "fact-online", ">ready<", ">on<", "records accounting")
	page("subscribers", s.Inside.String(), s.User)
	page("subscribers/"+s.Inside.String(), s.User, b.OutsideAddress, "The session began")
	page("outside/"+b.OutsideAddress, s.User, "active: 1", "free: 125")
	page("search?q="+b.OutsideAddress+":1024", "belongs to", s.User)

	req, err := http.NewRequestWithContext(w.ctx, "GET", "http://"+w.Daemon.HTTP+"/console/live", nil)
	w.must(err)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") { // until the first facts
	}
	w.must(w.Offline(w.ctx, s))
	for lines.Scan() {
		if text := lines.Text(); strings.Contains(text, `"kind":"cut","inside":"`+s.Inside.String()+`"`) {
			break
		}
	}
	w.must(lines.Err())
	w.must(w.Until(w.ctx, "the page to tell the end", func() (bool, error) {
		_, body, err := w.Daemon.Get(w.ctx, "/console/subscribers/"+s.Inside.String())
		return strings.Contains(body, "Nobody is online") && strings.Contains(body, "Reaped:"), err
	}))
}

// TestConsoleIsAsked: without http.console there are no pages, and a start off loopback has none by
// itself.
func TestConsoleIsAsked(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	for text, want := range map[string]int{`listen: "127.0.0.1:0", console: false`: http.StatusNotFound, `listen: "127.0.0.1:0", hosts: [cgn1.noc.example]`: http.StatusOK} {
		var before string
		w.must(w.Daemon.Edit(func(config string) string {
			before = config
			return strings.Replace(config, `listen: "127.0.0.1:0"}`, text+"}", 1)
		}))
		_, err := w.Daemon.Stop()
		w.must(err)
		w.must(w.Daemon.Start(w.ctx))
		req, err := http.NewRequestWithContext(w.ctx, "GET", "http://"+w.Daemon.HTTP+"/console/", nil)
		w.must(err)
		req.Host = "cgn1.noc.example"
		resp, err := http.DefaultClient.Do(req)
		w.must(err)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", text, resp.StatusCode, want)
		}
		w.must(w.Daemon.Edit(func(string) string { return before }))
	}
}
