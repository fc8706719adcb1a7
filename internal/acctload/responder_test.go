package acctload_test

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"testing"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
)

var secret = []byte("testing123")

// seen is one valid request, as the responder received it.
type seen struct {
	kind    rfc2866.AcctStatusType
	session string
	user    string
	nas     string
	address string
	again   bool // the same octets came before
}

// A responder checks all requests, and answers them by its behaviour.
type responder struct {
	t    *testing.T
	conn *net.UDPConn
	// behave returns the datagrams to send back. Reply is a valid answer.
	behave func(r seen, reply []byte) [][]byte

	mu    sync.Mutex
	log   []seen
	known map[string]bool
}

func respond(t *testing.T, behave func(seen, []byte) [][]byte) *responder {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	r := &responder{t: t, conn: conn, behave: behave, known: make(map[string]bool)}
	var serving sync.WaitGroup
	serving.Go(r.serve)
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	return r
}

func (r *responder) address() netip.AddrPort {
	return r.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (r *responder) serve() {
	buf := make([]byte, radius.MaxPacketLength)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		for _, b := range r.answer(bytes.Clone(buf[:n])) {
			if _, err := r.conn.WriteToUDPAddrPort(b, from); err != nil {
				return
			}
		}
	}
}

func (r *responder) answer(request []byte) [][]byte {
	if !radius.IsAuthenticRequest(request, secret) {
		r.t.Error("a Request Authenticator is wrong")
		return nil
	}
	p, err := radius.Parse(request, secret)
	if err != nil {
		r.t.Error(err)
		return nil
	}
	s := seen{
		kind: rfc2866.AcctStatusType_Get(p), session: rfc2866.AcctSessionID_GetString(p),
		user: rfc2865.UserName_GetString(p), nas: rfc2865.NASIdentifier_GetString(p),
	}
	if ip := rfc2865.FramedIPAddress_Get(p); ip != nil {
		s.address = ip.String()
	}
	r.mu.Lock()
	s.again = r.known[string(request)]
	r.known[string(request)] = true
	r.log = append(r.log, s)
	r.mu.Unlock()
	reply, err := p.Response(radius.CodeAccountingResponse).Encode()
	if err != nil {
		r.t.Error(err)
		return nil
	}
	return r.behave(s, reply)
}

// requests returns the requests received so far.
func (r *responder) requests() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]seen(nil), r.log...)
}

func always(_ seen, reply []byte) [][]byte { return [][]byte{reply} }
