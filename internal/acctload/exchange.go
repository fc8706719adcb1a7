package acctload

import (
	"time"

	"layeh.com/radius"
)

// An exchange is one identifier of a socket with its present or last request.
type exchange struct {
	buffer     []byte // room for a request and the secret
	request    []byte // in buffer
	kind       Kind
	subscriber int
	waiting    bool // for a reply

	due           time.Duration // latencies count from here
	deadline      time.Duration // of the present transmission
	timeout       time.Duration // of the present transmission
	transmissions int

	// The authenticator of the previous request, because a second reply to it may
	// still come.
	previous    [16]byte
	hasPrevious bool
}

// authenticator is the Request Authenticator, over which the reply is signed.
func (x *exchange) authenticator() []byte { return x.request[authenticatorAt:headerLength] }

// A window holds the identifiers of one socket. The identifier that has been
// free for longest is used next, so that a late reply rarely meets a new
// request.
type window struct {
	exchanges   [identifiers]exchange
	free        [identifiers]byte // a ring of identifiers that are not waiting
	first       int               // start of the ring
	outstanding int
}

func newWindow(room int) *window {
	w := &window{}
	for i := range w.exchanges {
		w.exchanges[i].buffer = make([]byte, 0, room)
		w.free[i] = byte(i)
	}
	return w
}

func (w *window) full() bool { return w.outstanding == identifiers }

// reserve occupies a free identifier; there must be one.
func (w *window) reserve() (byte, *exchange) {
	id := w.free[w.first%identifiers]
	w.first++
	w.outstanding++
	x := &w.exchanges[id]
	if x.request != nil {
		x.previous, x.hasPrevious = [16]byte(x.authenticator()), true
	}
	x.waiting = true
	return id, x
}

// release frees a waiting identifier.
func (w *window) release(id byte) {
	w.outstanding--
	w.free[(w.first+identifiers-1-w.outstanding)%identifiers] = id
	w.exchanges[id].waiting = false
}

// A finding is the classification of a datagram from the server.
type finding uint8

const (
	genuine   finding = iota // the reply to the present request
	late                     // a reply to a request that was answered or given up
	malformed                // no RADIUS packet
	wrongCode                // no Accounting-Response
	forged                   // the Response Authenticator is wrong, or matches no request
)

// judge classifies a datagram. The datagram should have capacity for the
// secret, and is overwritten.
func (w *window) judge(datagram, secret []byte) (finding, *exchange) {
	if len(datagram) < headerLength {
		return malformed, nil
	}
	length := int(datagram[2])<<8 | int(datagram[3])
	if length < headerLength || length > len(datagram) || !wellFormed(datagram[headerLength:length]) {
		return malformed, nil
	}
	if radius.Code(datagram[0]) != radius.CodeAccountingResponse {
		return wrongCode, nil
	}
	x := &w.exchanges[datagram[1]]
	v := newVerifier(datagram[:length], secret)
	switch {
	case x.request != nil && v.answers(x.authenticator()):
		if x.waiting {
			return genuine, x
		}
		return late, x
	case x.hasPrevious && v.answers(x.previous[:]):
		return late, x
	}
	return forged, nil
}
