package acctclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

var secret = []byte("testing123")

// server answers each datagram with the results of reply, until the test ends.
func server(t *testing.T, reply func(request []byte) [][]byte) string {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, radius.MaxPacketLength)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, b := range reply(bytes.Clone(buf[:n])) {
				if _, err := conn.WriteToUDPAddrPort(b, from); err != nil {
					return
				}
			}
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	return conn.LocalAddr().String()
}

func dial(t *testing.T, addr string, o acctclient.Options) *acctclient.Client {
	t.Helper()
	if o.Secret == nil {
		o.Secret = secret
	}
	c, err := acctclient.Dial(context.Background(), addr, "127.0.0.2:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// response answers a request as a correct server does, with layeh.com/radius.
func response(request, secret []byte) []byte {
	p, err := radius.Parse(request, secret)
	if err != nil {
		panic("acctclient_test: " + err.Error())
	}
	b, err := p.Response(radius.CodeAccountingResponse).Encode()
	if err != nil {
		panic("acctclient_test: " + err.Error())
	}
	return b
}

func start(session string) acctclient.Request {
	return acctclient.Request{
		Status:        rfc2866.AcctStatusType_Value_Start,
		SessionID:     session,
		UserName:      "alice",
		NASIdentifier: "bng1",
		FramedAddress: netip.MustParseAddr("100.64.0.1"),
	}
}

func TestAccount(t *testing.T) {
	for _, messageAuth := range []bool{false, true} {
		addr := server(t, func(request []byte) [][]byte {
			if !radius.IsAuthenticRequest(request, secret) {
				t.Error("Request Authenticator is wrong")
			}
			p, err := radius.Parse(request, secret)
			if err != nil {
				t.Error(err)
				return nil
			}
			if _, err := rfc2869.MessageAuthenticator_Lookup(p); (err == nil) != messageAuth {
				t.Errorf("Message-Authenticator present: %v, want %v", err == nil, messageAuth)
			}
			if rfc2865.UserName_GetString(p) != "alice" || rfc2866.AcctSessionID_GetString(p) != "s1" {
				t.Errorf("attributes are %v", p.Attributes)
			}
			return [][]byte{response(request, secret)}
		})
		c := dial(t, addr, acctclient.Options{MessageAuthenticator: messageAuth})
		if err := c.Account(context.Background(), start("s1")); err != nil {
			t.Error(err)
		}
	}
}

func TestRetransmitsTheSameOctets(t *testing.T) {
	var first []byte
	requests := 0
	addr := server(t, func(request []byte) [][]byte {
		if requests++; requests == 1 {
			first = request
		}
		if !bytes.Equal(request, first) {
			t.Error("a retransmission differs")
		}
		if requests < 3 {
			return nil
		}
		return [][]byte{response(request, secret)}
	})
	c := dial(t, addr, acctclient.Options{Timeout: 20 * time.Millisecond, Transmissions: 100})
	if err := c.Account(context.Background(), start("s1")); err != nil {
		t.Fatal(err)
	}
	if got := c.Stats().Retransmissions; got < 2 {
		t.Errorf("%d retransmissions, want at least 2", got)
	}
}

func TestTrustsNoForgery(t *testing.T) {
	addr := server(t, func(request []byte) [][]byte {
		sound := response(request, secret)
		other := bytes.Clone(sound)
		other[1]++
		reject := bytes.Clone(sound)
		reject[0] = 3
		return [][]byte{response(request, []byte("wrong")), {5}, other, reject}
	})
	c := dial(t, addr, acctclient.Options{Timeout: 20 * time.Millisecond, Transmissions: 2})
	if err := c.Account(context.Background(), start("s1")); !errors.Is(err, acctclient.ErrNoReply) {
		t.Errorf("err is %v, want ErrNoReply", err)
	}
	if got := c.Stats().BadReplies; got < 4 {
		t.Errorf("%d bad replies counted, want at least 4", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	addr := server(t, func(request []byte) [][]byte { return [][]byte{response(request, secret)} })
	c := dial(t, addr, acctclient.Options{Timeout: 100 * time.Millisecond, Transmissions: 50})
	var asking sync.WaitGroup
	for i := range 600 {
		asking.Go(func() {
			if err := c.Account(context.Background(), start(fmt.Sprint("s", i))); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
}

func TestEnds(t *testing.T) {
	silent := func([]byte) [][]byte { return nil }
	t.Run("with its context", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		c := dial(t, server(t, silent), acctclient.Options{})
		if err := c.Account(ctx, start("s")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err is %v", err)
		}
	})
	t.Run("when closed", func(t *testing.T) {
		got := make(chan []byte, 1)
		c := dial(t, server(t, func(b []byte) [][]byte { got <- b; return nil }), acctclient.Options{})
		result := make(chan error)
		go func() { result <- c.Account(context.Background(), start("s")) }()
		<-got
		c.Close()
		if err := <-result; !errors.Is(err, acctclient.ErrClosed) {
			t.Errorf("err is %v", err)
		}
		if err := c.Status(context.Background()); err == nil {
			t.Error("a closed client sent")
		}
	})
	t.Run("without a server", func(t *testing.T) {
		c := dial(t, "127.0.0.1:9", acctclient.Options{Timeout: time.Millisecond})
		if err := c.Status(context.Background()); !errors.Is(err, acctclient.ErrNoReply) {
			t.Errorf("err is %v", err)
		}
	})
	t.Run("without a secret", func(t *testing.T) {
		if _, err := acctclient.Dial(context.Background(), "127.0.0.1:9", "", acctclient.Options{}); err == nil {
			t.Error("accepted")
		}
	})
}

func TestRequestPacket(t *testing.T) {
	stamp := time.Unix(1_700_000_000, 0)
	r := acctclient.Request{
		Status:         rfc2866.AcctStatusType_Value_Stop,
		SessionID:      "s",
		MultiSessionID: "m",
		NASAddress:     netip.MustParseAddr("192.0.2.1"),
		FramedAddress:  netip.MustParseAddr("100.64.0.1"),
		DelayTime:      5 * time.Second,
		EventTime:      stamp,
		InputOctets:    3<<32 + 1,
		TerminateCause: rfc2866.AcctTerminateCause_Value_UserRequest,
		Extra:          radius.Attributes{{Type: rfc2865.ProxyState_Type, Attribute: []byte("p")}},
	}
	p, err := r.Packet()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rfc2866.AcctSessionTime_Lookup(p); err != nil {
		t.Error("a Stop lacks its Acct-Session-Time")
	}
	if rfc2869.AcctInputGigawords_Get(p) != 3 || rfc2866.AcctInputOctets_Get(p) != 1 {
		t.Error("octets are not split")
	}
	if !rfc2869.EventTimestamp_Get(p).Equal(stamp) || rfc2866.AcctDelayTime_Get(p) != 5 {
		t.Error("times are wrong")
	}
	if rfc2866.AcctSessionID_GetString(p) != "s" || rfc2866.AcctMultiSessionID_GetString(p) != "m" {
		t.Errorf("identifiers are wrong: %v", p.Attributes)
	}
	if rfc2865.ProxyState_GetString(p) != "p" || rfc2866.AcctTerminateCause_Get(p) != 1 {
		t.Errorf("attributes are %v", p.Attributes)
	}
	for _, send := range []bool{false, true} {
		p, err := (&acctclient.Request{SendDelay: send}).Packet()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rfc2866.AcctDelayTime_Lookup(p); (err == nil) != send {
			t.Errorf("an Acct-Delay-Time of 0 is sent: %v, want %v", err == nil, send)
		}
	}
	r.UserName = string(make([]byte, 254))
	if _, err := r.Packet(); err == nil {
		t.Error("a User-Name of 254 octets was accepted")
	}
}
