package console

import (
	"context"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/signin"
	"github.com/sessiond/sessiond/internal/testenv"
)

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
