package console

import (
	"net/http"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/measure"
	"github.com/sessiond/sessiond/internal/rawtext"
)

// eventsPage shows events as they happen; the script fills it.
func (c *Console) eventsPage(*http.Request) (shownPage, error) {
	return shownPage{template: "events.html", Title: "Events", Section: "events"}, nil
}

// eventRow is one event as the script shows it: text, and the addresses that it is about.
type eventRow struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"`
	Inside  string    `json:"inside"`
	User    string    `json:"user"`
	Outside string    `json:"outside"` // address alone
	Ports   string    `json:"ports"`
	Detail  string    `json:"detail"`
}

// eventNames are the kinds of events in plain words.
var eventNames = map[inspect.EventKind]string{
	inspect.EventCreated: "online", inspect.EventUpdated: "updated", inspect.EventDeleted: "ended",
	inspect.EventBound: "ports assigned", inspect.EventPending: "waits for ports", inspect.EventDraining: "draining",
	inspect.EventCut: "cut", inspect.EventReaped: "sessions removed", inspect.EventReleased: "ports free again",
	inspect.EventGrace: "in grace time", inspect.EventObserved: "removal observed",
	inspect.EventRemovalHeld: "removal suspended", inspect.EventRemovalRefused: "removal refused",
	inspect.EventLimitReached: "at a limit", inspect.EventBlockAdded: "block added",
	inspect.EventBlockReturned: "block returned", inspect.EventBlockRefused: "block refused",
}

func eventRowOf(e *inspect.Event) eventRow {
	row := eventRow{
		At: e.At, Kind: eventNames[e.Kind], Inside: e.Subscriber.Inside.String(),
		User: rawtext.Of(e.Subscriber.UserName), Detail: e.Reason.String(),
	}
	if b := e.Subscriber.Binding; b != nil {
		row.Outside, row.Ports = b.Outside.String(), b.Ports()
	}
	switch e.Kind {
	case inspect.EventReaped:
		row.Detail = joined(row.Detail, measure.Count(e.SessionsEnded)+" sessions")
	case inspect.EventLimitReached:
		for _, l := range e.Limits {
			row.Detail = joined(row.Detail, l.String())
		}
	}
	return row
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}
