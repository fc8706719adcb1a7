package subscriber

import (
	"testing"
	"time"
)

// BenchmarkDecide measures a decision by kind of event, and one in a group that does not
// know the session. One operation is one event.
func BenchmarkDecide(b *testing.B) {
	online := View{Group: "g", Session: openSince(0), Holder: rec(me, "alice", 0, 0)}
	for _, c := range []struct {
		name string
		view View
		ev   Event
		want Verdict
	}{
		{"start", View{Group: "g"}, makeEvent(EventStart, 0), Opened},
		{"interim", online, makeEvent(EventInterim, time.Minute), Refreshed},
		{"stop", online, makeEvent(EventStop, time.Hour), Stopped},
		{"elsewhere", View{Group: "h", Scope: Elsewhere}, makeEvent(EventInterim, time.Minute), NotHere},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Decide(c.view, c.ev); d.Verdict != c.want {
					b.Fatal(d.Verdict)
				}
			}
		})
	}
}
