package radiusacct_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/sessiond/sessiond/internal/radiusacct"
)

// TestFloodKeepsToItself lets client "a" overflow its cache and its queue while
// client "b" has a cached reply and a request waiting.
func TestFloodKeepsToItself_ACCT26(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) {
		o.Workers, o.QueueLength, o.BatchSize, o.CacheBytes = 1, 8, 4, 16<<10
	})
	b := newNAS(t, "127.0.0.9", l.addr)
	cached := resign(startRequest(1, "b1"), "secret-of-b")
	reply := b.ask(cached, "secret-of-b")

	flooder := newNAS(t, "127.0.0.2", l.addr)
	for id := range 200 {
		flooder.ask(startRequest(byte(id), fmt.Sprint("a", id)), secret)
	}
	if again := b.ask(cached, "secret-of-b"); !bytes.Equal(again, reply) {
		t.Error("the flood evicted another client's reply")
	}

	resume := l.recorder.stall()
	defer resume()
	for id := range 200 {
		flooder.send(startRequest(byte(id), fmt.Sprint("c", id)))
	}
	l.observer.wait(t, "a/start/dropped", 200-8-4)
	waiting := resign(startRequest(2, "b2"), "secret-of-b")
	b.send(waiting)
	resume()
	b.receive()
	if got := l.observer.count("b/start/" + radiusacct.ResultDropped); got != 0 {
		t.Errorf("%d requests of the other client dropped", got)
	}
}
