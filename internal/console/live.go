package console

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/inspect"
)

// Times of the stream.
const (
	liveTick    = 250 * time.Millisecond // between two messages with events
	factsEvery  = 2 * time.Second
	factsWithin = 5 * time.Second  // for the facts to be read; other streams wait for them
	liveWithin  = 10 * time.Second // for a reader to take a message
)

// eventsPerTick is the most events that a message has. A person reads no more, and a restart of all
// subscribers makes thousands a second.
const eventsPerTick = 50

// serveLive sends facts and events until the browser leaves. A browser needs one stream for all of
// its tabs: the script shares it.
func (c *Console) serveLive(w http.ResponseWriter, r *http.Request) {
	v := visitorOf(r)
	if v.Role < access.Viewer {
		http.Error(w, errReadNothing.Error(), http.StatusForbidden)
		return
	}
	peer := peerOf(r)
	if c.streams.Enter(peer) != "" {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many event streams are open; close some pages", http.StatusServiceUnavailable)
		return
	}
	defer c.streams.Leave(peer)
	s := &liveStream{w: w, control: http.NewResponseController(w)}
	ctx, stop := context.WithCancel(r.Context())
	events, err := c.Subscribers.Watch(ctx, inspect.Watch{Gaps: true}) // from before the first message on
	if err != nil {
		stop()
		http.Error(w, "no events now: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events back
	var watch sync.WaitGroup
	defer watch.Wait()
	defer stop()
	waiting := &waitingEvents{}
	watch.Go(func() {
		waiting.gather(events)
		stop()
	})
	c.feed(ctx, s, waiting, func() bool { return c.stillSignedIn(r, v) })
}

// feed sends what there is at each tick, as long as the reader may have it.
func (c *Console) feed(ctx context.Context, s *liveStream, waiting *waitingEvents, allowed func() bool) {
	tick := time.NewTicker(liveTick)
	defer tick.Stop()
	for due := time.Now(); ; {
		if now := time.Now(); !now.Before(due) {
			due = now.Add(factsEvery)
			if !allowed() {
				return
			}
			if data := c.facts.encoded(ctx, c); len(data) > 0 && s.send("facts", data) != nil {
				return
			}
		}
		if message, ok := waiting.next(); ok && s.sendJSON("events", message) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// liveStream writes messages to one browser.
type liveStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send writes one message, whose data has no line breaks. The server's own deadline is that of a page.
func (s *liveStream) send(event string, data []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(liveWithin)); err != nil {
		return err
	}
	message := make([]byte, 0, len(event)+len(data)+16)
	message = append(append(message, "event: "...), event...)
	message = append(append(append(message, "\ndata: "...), data...), "\n\n"...)
	if _, err := s.w.Write(message); err != nil {
		return err
	}
	return s.control.Flush()
}

func (s *liveStream) sendJSON(event string, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return s.send(event, data)
}

// eventsMessage is a message with events.
type eventsMessage struct {
	Rows    []eventRow `json:"rows"`
	LeftOut int        `json:"leftOut"` // further events
	Missed  bool       `json:"missed"`  // more events, of unknown number
}

// waitingEvents are the events since the last message.
type waitingEvents struct {
	mu sync.Mutex
	eventsMessage
}

// gather adds the messages of a watch until it ends.
func (e *waitingEvents) gather(messages iter.Seq2[inspect.Message, error]) {
	for m, err := range messages {
		switch {
		case err != nil:
			return
		case m.Gap != nil:
			e.miss()
		case m.Notice != nil:
			e.add(&m.Notice.Event)
		}
	}
}

// miss notes that events are missing, of unknown number.
func (e *waitingEvents) miss() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Missed = true
}

func (e *waitingEvents) add(event *inspect.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.Rows) == eventsPerTick {
		e.LeftOut++
		return
	}
	e.Rows = append(e.Rows, eventRowOf(event))
}

// next returns the message that is due; false for none.
func (e *waitingEvents) next() (eventsMessage, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	message := e.eventsMessage
	e.eventsMessage = eventsMessage{}
	return message, len(message.Rows) > 0 || message.Missed
}

// factsMessage is the message with the facts of the overview, made once for all streams; no data
// until the facts could be read.
type factsMessage struct {
	mu   sync.Mutex
	made time.Time
	data []byte
}

// encoded returns the message, which is not much older than factsEvery, unless the facts
// cannot be read now. The browser whose stream asks may leave meanwhile: the others have
// the message, too.
func (m *factsMessage) encoded(ctx context.Context, c *Console) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.made) < factsEvery/2 {
		return m.data
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), factsWithin)
	defer cancel()
	data, err := c.encodeFacts(ctx)
	if err == nil {
		m.data = data
	} else {
		c.failed(err)
	}
	m.made = time.Now() // those that waited do not try again
	return m.data
}

// encodeFacts returns the facts as JSON.
func (c *Console) encodeFacts(ctx context.Context) ([]byte, error) {
	cards, err := c.cards(ctx)
	if err != nil {
		return nil, err
	}
	var message struct {
		Facts []shownFact `json:"facts"`
		Curve *ratesCurve `json:"curve,omitempty"`
	}
	for _, card := range cards {
		message.Facts = append(message.Facts, card.Facts...)
		if card.Curve != nil {
			message.Curve = card.Curve
		}
	}
	return json.Marshal(message)
}
