package lifecycle

import (
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestLastStop_SES07: only a binding has a grace time to recall whose own session
// ended in these changes, followed by none but its subscriber.
func TestLastStop_SES07(t *testing.T) {
	end := func(user, id string, reason subscriber.Reason) subscriber.Change {
		r := subscriber.Record{UserName: user, SessionID: subscriber.SessionID{AcctSessionID: id}}
		return subscriber.Change{
			ID: subscriber.ParseVersion(id + "-0"), Kind: subscriber.Deleted, End: subscriber.End{Reason: reason}, Record: r.Pack(),
		}
	}
	came := func(user, id string) subscriber.Change {
		c := end(user, id, subscriber.ReasonNone)
		c.Kind = subscriber.Created
		return c
	}
	partial := func(id string) subscriber.Change {
		return subscriber.Change{ID: subscriber.ParseVersion(id + "-0"), Kind: subscriber.Deleted, End: subscriber.End{Reason: subscriber.ReasonStop}, Partial: true}
	}
	const stop, admin = subscriber.ReasonStop, subscriber.ReasonAdmin
	for name, tt := range map[string]struct {
		ends []subscriber.Change
		want string
	}{
		"its own":            {[]subscriber.Change{end("a", "2", stop)}, "2-0"},
		"others before":      {[]subscriber.Change{end("z", "1", admin), end("a", "2", stop)}, "2-0"},
		"again":              {[]subscriber.Change{end("a", "2", stop), end("a", "3", stop)}, "3-0"},
		"an earlier session": {[]subscriber.Change{end("a", "1", stop)}, ""}, // it was removed by hand
		"told in short":      {[]subscriber.Change{partial("2")}, "2-0"},
		"again, in short":    {[]subscriber.Change{partial("2"), came("a", "3"), partial("3")}, "3-0"},
		"it is back":         {[]subscriber.Change{partial("2"), came("a", "3")}, "2-0"},
		"in short, stranger": {[]subscriber.Change{partial("2"), came("z", "3"), partial("3")}, ""},
		"another reason":     {[]subscriber.Change{end("a", "2", admin)}, ""},
		"a stranger behind":  {[]subscriber.Change{end("a", "2", stop), end("z", "3", stop)}, ""},
	} {
		b := nat.Binding{Holder: nat.Holder{Identity: "u:a", AcctSessionID: "2"}}
		if got := lastStop(&b, tt.ends); (got != nil) != (tt.want != "") || got != nil && got.ID.String() != tt.want {
			t.Errorf("%s: %+v, want %q", name, got, tt.want)
		}
	}
	nameless := nat.Binding{Holder: nat.Holder{AcctSessionID: "2"}}
	if got := lastStop(&nameless, []subscriber.Change{end("", "2", stop)}); got != nil {
		t.Errorf("nobody comes back to %+v", got)
	}
}
