package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// sample returns a packet like a BNG's, with the given attributes appended.
func sample(more ...byte) []byte {
	p := radius.New(radius.CodeAccountingRequest, []byte("secret"))
	p.Identifier = 1
	rfc2866.AcctStatusType_Set(p, rfc2866.AcctStatusType_Value_InterimUpdate)
	rfc2866.AcctSessionID_SetString(p, "4a5f00c2e1")
	rfc2865.UserName_SetString(p, "alice@isp.example")
	rfc2865.NASIdentifier_SetString(p, "bng1.pop3.isp.example")
	rfc2865.NASIPAddress_Set(p, []byte{192, 0, 2, 1})
	rfc2865.FramedIPAddress_Set(p, []byte{100, 64, 0, 7})
	rfc2865.CallingStationID_SetString(p, "00:53:00:12:34:56")
	rfc2865.Class_SetString(p, "gold")
	rfc2866.AcctSessionTime_Set(p, 3600)
	rfc2866.AcctInputOctets_Set(p, 123456)
	rfc2866.AcctOutputOctets_Set(p, 1234567)
	b, err := p.Encode()
	if err != nil {
		panic("wire: " + err.Error())
	}
	b = append(b, more...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[4:20], NewSigner().digest(b, zeros[:], []byte("secret")))
	return b
}

// FuzzPacket compares the parser with that of layeh.com/radius: a packet that it accepts is
// one there too, and the reply has the same Proxy-State attributes.
func FuzzPacket(f *testing.F) {
	f.Add(sample())
	f.Add(sample(33, 2, 33, 5, 0, 1, 2, 26, 3, 0))
	f.Add(sample(80, 18, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
	f.Add(append(sample(97, 4, 0, 129), 0, 0, 0))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		before := bytes.Clone(datagram)
		p, fault := Parse(datagram)
		peer, err := radius.Parse(datagram, nil)
		if fault != nil {
			if peer != nil {
				t.Fatalf("refused %x: %v", datagram, fault)
			}
			return
		}
		var a Attributes
		if fault := a.Parse(p, nil); fault != nil {
			return
		}
		if err != nil {
			t.Fatalf("took what is no packet: %v", err)
		}
		NewSigner().Authentic(p, []byte("secret"))
		if a.HasMessageAuthenticator() {
			MessageAuthentic(p, &a, []byte("secret"))
		}
		if !bytes.Equal(datagram, before) {
			t.Fatal("checking changed the datagram")
		}
		checkReply(t, AppendReply(nil, p, a.ReplyLen()), peer)
	})
}

func checkReply(t *testing.T, reply Packet, request *radius.Packet) {
	t.Helper()
	got, err := radius.Parse(reply, nil)
	if err != nil {
		t.Fatalf("reply %x: %v", reply, err)
	}
	if got.Code != radius.CodeAccountingResponse || got.Identifier != request.Identifier {
		t.Fatalf("reply is %v %d", got.Code, got.Identifier)
	}
	var want radius.Attributes
	for _, avp := range request.Attributes {
		if avp.Type == rfc2865.ProxyState_Type {
			want = append(want, avp)
		}
	}
	if len(got.Attributes) != len(want) {
		t.Fatalf("%d attributes in the reply, want %d", len(got.Attributes), len(want))
	}
	for i, avp := range got.Attributes {
		if avp.Type != rfc2865.ProxyState_Type || !bytes.Equal(avp.Attribute, want[i].Attribute) {
			t.Fatalf("reply attribute %d is %v, want %v", i, avp, want[i])
		}
	}
}

// FuzzEvent compares the event with the values that layeh.com/radius reads from the same
// attributes.
func FuzzEvent(f *testing.F) {
	f.Add(sample()[HeaderLen:])
	f.Add(sample(8, 6, 255, 255, 255, 254, 55, 6, 0, 0, 0, 0, 41, 6, 255, 255, 255, 255)[HeaderLen:])
	f.Add([]byte{40, 6, 0, 0, 0, 7})
	f.Add([]byte{40, 6, 0, 0, 0, 1, 44, 4, 0, 255, 95, 18, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(sample(8, 6, 100, 64, 0, 8, 8, 6, 0, 0, 0, 0, 8, 6, 100, 64, 0, 7, 97, 8, 0, 32, 0x20, 1, 0xd, 0xb8, 123, 4, 0, 0)[HeaderLen:])
	f.Add(sample(append([]byte{26, 26, 0, 0, 0, 9, 1, 20}, "parent-session-id="...)...)[HeaderLen:])
	f.Add(sample(26, 9, 0, 0, 0x13, 0x0a, 83, 3, 'v', 50, 3, 'm', 51, 6, 0, 0, 0, 2)[HeaderLen:])
	f.Add(sample(26, 9, 0, 0, 0x19, 0x7f, 151, 3, 'v', 50, 3, 'm', 25, 4, 0, 255, 25, 2, 25, 3, 'b')[HeaderLen:])
	source, arrival := netip.MustParseAddr("192.0.2.9"), time.Unix(1_700_000_000, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > radius.MaxPacketLength-HeaderLen {
			return
		}
		var a Attributes
		if a.Parse(append(make(Packet, HeaderLen), b...), nil) != nil {
			return
		}
		kind, fault := a.Kind()
		if fault != nil {
			return
		}
		var d Decoder
		var ev subscriber.Event
		more := d.Decode(&ev, &a, kind, &Sender{Name: "client", Realm: "client"}, source, arrival)
		attrs, err := radius.ParseAttributes(b)
		if err != nil {
			t.Fatal(err)
		}
		checkEvent(t, ev, &radius.Packet{Attributes: attrs})
		checkClasses(t, ev, attrs)
		checkAddresses(t, append(more, ev))
		if new(subscriber.Clock).Place(&ev); ev.At.Before(arrival.Add(-49*time.Hour)) || ev.At.After(arrival) {
			t.Fatalf("event time %v is absurd", ev.At)
		}
	})
}

func checkEvent(t *testing.T, ev subscriber.Event, p *radius.Packet) {
	t.Helper()
	if ev.UserName != rfc2865.UserName_GetString(p) ||
		ev.AcctSessionID != rfc2866.AcctSessionID_GetString(p) ||
		ev.CallingStationID != rfc2865.CallingStationID_GetString(p) {
		t.Fatalf("texts differ: %+v", ev)
	}
	if uint32(ev.InputOctets) != uint32(rfc2866.AcctInputOctets_Get(p)) ||
		uint32(ev.OutputOctets) != uint32(rfc2866.AcctOutputOctets_Get(p)) ||
		ev.TerminateCause != uint32(rfc2866.AcctTerminateCause_Get(p)) {
		t.Fatalf("numbers differ: %+v", ev)
	}
	if framed, err := rfc2865.FramedIPAddress_Gets(p); err == nil && ev.Inside.IsValid() &&
		!slices.ContainsFunc(framed, func(ip net.IP) bool { return ip.Equal(ev.Inside.AsSlice()) }) {
		t.Fatalf("inside address %v, want one of %v", ev.Inside, framed)
	}
	if ev.Client != "client" || ev.NAS == "" {
		t.Fatalf("nobody sent it: %+v", ev)
	}
}

// checkClasses checks that every Class that is not empty is kept, in order.
func checkClasses(t *testing.T, ev subscriber.Event, attrs radius.Attributes) {
	t.Helper()
	var want []string
	for _, avp := range attrs {
		if avp.Type == rfc2865.Class_Type && len(avp.Attribute) > 0 && len(want) < maxListed {
			want = append(want, string(avp.Attribute))
		}
	}
	got := ev.MoreClasses
	if ev.Class != "" {
		got = append([]string{ev.Class}, got...)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("classes are %q, want %q", got, want)
	}
}

// checkAddresses checks that the events differ only in their address, one for each.
func checkAddresses(t *testing.T, events []subscriber.Event) {
	t.Helper()
	seen := make(map[netip.Addr]bool)
	for _, ev := range events {
		seen[ev.Inside] = true
		if len(events) > 1 && !slices.Contains(ev.Addresses, ev.Inside) {
			t.Fatalf("%v is not among %v", ev.Inside, ev.Addresses)
		}
	}
	if len(seen) != len(events) || len(events) > 1 && len(events) != len(events[0].Addresses) {
		t.Fatalf("%d events, %d addresses", len(events), len(seen))
	}
}
