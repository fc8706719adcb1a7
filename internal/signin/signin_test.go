package signin

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessiond/sessiond/internal/access"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func holderOf(name string) Holder { return Holder{Name: name, Role: access.Operator} }

// TestSessionsEnd: a session ends when nobody used it for a time, and at an age in any case.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		uses   time.Duration // between two uses by a person, 0 for none
		looks  time.Duration // between two requests of the script, 0 for none
		at     time.Duration
		exists bool
	}{
		{"unused", 0, 0, IdleTime - time.Second, true},
		{"unused for too long", 0, 0, IdleTime, false},
		{"kept current by the script alone", 0, time.Minute, IdleTime, false},
		{"used", IdleTime - time.Minute, 0, Lifetime - time.Second, true},
		{"used, and too old", IdleTime - time.Minute, 0, Lifetime, false},
	} {
		var s Store
		id, begun := s.Begin(holderOf("token:o"), start)
		for at := time.Duration(0); at < c.at; at += time.Minute {
			if c.uses > 0 && at%c.uses == 0 {
				s.Find(id, start.Add(at), true)
			}
			if c.looks > 0 && at%c.looks == 0 {
				s.Find(id, start.Add(at), false)
			}
		}
		found := s.Find(id, start.Add(c.at), false)
		if (found != nil) != c.exists || found != nil && found != begun {
			t.Errorf("%s: found %v", c.name, found)
		}
		if found == nil && len(s.sessions) != 0 {
			t.Errorf("%s: it is kept", c.name)
		}
	}
}

// TestIdentifiers: each session has an identifier of its own, and what is ended is not found.
func TestIdentifiers(t *testing.T) {
	t.Parallel()
	var s Store
	a, _ := s.Begin(holderOf("a"), start)
	b, second := s.Begin(holderOf("b"), start)
	if a == b || len(a) < 26 {
		t.Errorf("identifiers %q and %q", a, b)
	}
	s.End(a)
	s.End("unknown")
	if s.Find(a, start, true) != nil || s.Find("", start, true) != nil || s.Find(b, start, true) != second {
		t.Error("the wrong session ended")
	}
	for key := range s.sessions {
		if string(key[:]) == b {
			t.Error("the store has the identifier itself")
		}
	}
}

// TestSessionsOfOneHolderAreBounded_I10: the one that is idle for longest makes room, and nobody else's.
func TestSessionsOfOneHolderAreBounded_I10(t *testing.T) {
	t.Parallel()
	var s Store
	other, _ := s.Begin(holderOf("other"), start)
	var ids []string
	for i := range sessionsPerHolder {
		id, _ := s.Begin(holderOf("a"), start.Add(time.Duration(i)*time.Second))
		ids = append(ids, id)
	}
	now := start.Add(2 * time.Minute)
	s.Find(ids[0], now, true) // so that the second is idle for longest
	s.Begin(holderOf("a"), now)
	if s.Find(ids[1], now, false) != nil || s.Find(ids[0], now, false) == nil || s.Find(other, now, false) == nil {
		t.Error("another session made room")
	}
	if n := len(s.sessions); n != sessionsPerHolder+1 {
		t.Errorf("%d sessions", n)
	}
	s.Begin(holderOf("new"), now.Add(Lifetime))
	if n := len(s.sessions); n != 1 {
		t.Errorf("%d sessions are kept that are over", n-1)
	}
}

// TestForms: a form is good for its purpose, request, time and session alone.
func TestForms(t *testing.T) {
	t.Parallel()
	var s Store
	_, own := s.Begin(holderOf("a"), start)
	_, other := s.Begin(holderOf("a"), start)
	good := own.NewForm("/console/x", start)
	if again := own.NewForm("/console/x", start); again.RequestID == good.RequestID {
		t.Error("two forms have one request_id")
	}
	out := own.SignOutForm("/console/signout")
	for name, c := range map[string]struct {
		change func(*Form)
		after  time.Duration
		by     *Session
		want   error
	}{
		"as it is":           {},
		"at its last moment": {after: FormTime},
		"too old":            {after: FormTime + time.Second, want: ErrExpired},
		"another purpose":    {change: func(f *Form) { f.Purpose = "/console/y" }, want: ErrForged},
		"another request":    {change: func(f *Form) { f.RequestID = "x" }, want: ErrForged},
		"a later end":        {change: func(f *Form) { f.Until = fmt.Sprint(start.Add(time.Hour).Unix()) }, want: ErrForged},
		"no end":             {change: func(f *Form) { f.Until = "" }, want: ErrForged},
		"no signature":       {change: func(f *Form) { f.Signature = "" }, want: ErrForged},
		"half a signature":   {change: func(f *Form) { f.Signature = f.Signature[:10] }, want: ErrForged},
		"no base64":          {change: func(f *Form) { f.Signature = "?" }, want: ErrForged},
		"another session":    {by: other, want: ErrForged},
		"that of a sign-out": {change: func(f *Form) { *f = Form{f.Purpose, f.RequestID, out.Until, out.Signature} }, want: ErrForged},
		"a sign-out, late":   {change: func(f *Form) { *f = out }, after: Lifetime - time.Minute},
	} {
		f, by := good, own
		if c.change != nil {
			c.change(&f)
		}
		if c.by != nil {
			by = c.by
		}
		if err := by.Check(f, start.Add(c.after)); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestOutcomes: the newest are kept, one for each request.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	var store Store
	_, s := store.Begin(holderOf("a"), start)
	for i := range 2 * outcomesPerSession {
		s.Keep(Outcome{RequestID: fmt.Sprint(i), Text: "first"})
	}
	s.Keep(Outcome{RequestID: fmt.Sprint(2*outcomesPerSession - 1), Text: "again"})
	if o, ok := s.Outcome(fmt.Sprint(2*outcomesPerSession - 1)); !ok || o.Text != "again" {
		t.Errorf("the last outcome is %+v", o)
	}
	if _, ok := s.Outcome("0"); ok || len(s.outcomes) != outcomesPerSession {
		t.Errorf("%d outcomes are kept", len(s.outcomes))
	}
}

// TestAttempts_I10: a source has some attempts, then one in an interval; and a source keeps no
// other out.
func TestAttempts_I10(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var a Attempts
		allowed := func(source string) bool {
			return a.Fail(source, time.Now()) == 0
		}
		for i := range 3 * attemptsAtOnce {
			if got := allowed("a"); got != (i < attemptsAtOnce) {
				t.Errorf("attempt %d: allowed %v", i, got)
			}
		}
		if !allowed("b") {
			t.Error("another source is kept out")
		}
		time.Sleep(attemptInterval)
		if !allowed("a") || allowed("a") {
			t.Error("one attempt in an interval is not allowed, or more")
		}
		for i := range 2 * attemptSources {
			a.Fail(fmt.Sprint("many ", i), time.Now())
		}
		if n := len(a.sources); n > attemptSources {
			t.Errorf("%d sources are kept", n)
		}
		time.Sleep(attemptsAtOnce * attemptInterval)
		if !allowed("new") {
			t.Error("a new source is kept out by sources of long ago")
		}
	})
}
