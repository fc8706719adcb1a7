package radiusacct

import (
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/udpbatch"
)

// A request waits for the Recorder, or is being recorded.
type request struct {
	event      subscriber.Event
	more       []subscriber.Event // events of the session's further addresses
	peer       *clientState
	realm      *realm
	secret     []byte // the secret that authenticated it
	duplicates *replyCache
	exchange   exchange
	way        replyPath
	kind       string // one of the Type constants
	arrival    time.Time

	authenticator [16]byte
	reply         wire.Packet          // signed once the events are recorded
	short         [wire.HeaderLen]byte // buffer of a reply without attributes
	wanted        bool                 // the sender still waits for the reply
	noRecord      bool                 // nothing of its events was recorded
}

// requests pools requests, whose memory would otherwise be garbage some milliseconds later.
var requests = sync.Pool{New: func() any { return new(request) }}

// recycle returns a request to the pool; no reference to it may remain.
func (r *request) recycle() {
	*r = request{}
	requests.Put(r)
}

// A replyPath is the way of the reply: a stream, or a socket and an address.
type replyPath struct {
	stream *radsec.Stream // nil for datagrams
	socket int            // index among the server's sockets
	to     udpbatch.Address
	oob    []byte // control message that selects the source address
}
