package console

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

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

// TestDecisionsAreAboutTheirPage: a form decides about the removals that its page counted. When others are
// held by then it changes nothing, and its page comes again with the present ones; the form of a change of
// which a part may be made stays as it is.
func TestDecisionsAreAboutTheirPage(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"removals/confirm", "removals/refuse"} {
		b := controltest.Scene()
		var calls failingCalls
		s := siteOf(t, b, false, func(o *Options) {
			calls.ClientConnInterface = o.Calls
			o.Calls = &calls
		})
		v := s.signedIn(access.Operator)
		form := formIn(t, v.get(path+"?inside=0.0.0.0%2F0").body)
		form.Set("reason", "ticket 7")
		forged := with2(formIn(t, v.get(path+"?inside=0.0.0.0%2F0").body), "reason", "ticket 8", "etag", "")
		if a := v.post(path, forged); a.code != http.StatusBadRequest || len(b.Orders) > 0 {
			t.Errorf("%s without an etag: status %d:\n%s", path, a.code, words(t, a.body))
		}
		more := b.Waiting[0]
		more.Kind, more.Record.Inside = inspect.RemovalHeld, more.Record.Inside.Next()
		b.Waiting = append(b.Waiting, more)
		before := b.State()
		a := v.post(path, form)
		text, next := words(t, a.body), formIn(t, a.body)
		if a.code != http.StatusConflict || !strings.Contains(text, "2 subscribers would") || !strings.Contains(text, "Other removals are held than before") ||
			b.State() != before || len(b.Orders) > 0 || next.Get("etag") == form.Get("etag") {
			t.Errorf("%s with another removal: status %d, %d orders:\n%s", path, a.code, len(b.Orders), text)
		}
		next.Set("reason", "ticket 7")
		calls.err = status.Error(codes.Unavailable, "after 1 removals: the database is away")
		b.Waiting = b.Waiting[:len(b.Waiting)-1] // one is decided
		if a := v.post(path, next); formIn(t, a.body).Get("etag") != next.Get("etag") || !strings.Contains(words(t, a.body), "1 subscriber would") {
			t.Errorf("%s made in part: status %d:\n%s", path, a.code, words(t, a.body))
		}
		calls.err = nil
		b.Waiting = append(b.Waiting, more)
		if a := v.post(path, next); a.code != http.StatusSeeOther || len(b.Orders) != 1 {
			t.Errorf("%s of the present ones: status %d, %d orders:\n%s", path, a.code, len(b.Orders), words(t, a.body))
		}
	}
}
