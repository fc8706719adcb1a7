package wire

import (
	"net/netip"
	"testing"
	"time"

	"layeh.com/radius"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Benchmarks of the stages of one request in this package; radiusacct has the others.

// BenchmarkStageValidate measures authenticating a packet and parsing its attributes.
func BenchmarkStageValidate(b *testing.B) {
	octets, secret, s := sample(), []byte("secret"), NewSigner()
	var a Attributes
	b.ReportAllocs()
	for b.Loop() {
		p, _ := Parse(octets)
		if !s.Authentic(p, secret) || a.Parse(p, nil) != nil {
			b.Fatal("refused")
		}
	}
}

// BenchmarkLayehValidate measures the same with layeh.com/radius.
func BenchmarkLayehValidate(b *testing.B) {
	octets, secret := sample(), []byte("secret")
	b.ReportAllocs()
	for b.Loop() {
		if !radius.IsAuthenticRequest(octets, secret) {
			b.Fatal("refused")
		}
		if _, err := radius.Parse(octets, secret); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStageDecode measures making an event of the attributes.
func BenchmarkStageDecode(b *testing.B) {
	var a Attributes
	var d Decoder
	if err := a.Parse(sample(), nil); err != nil {
		b.Fatal(err)
	}
	bng := Sender{Name: "bng", Realm: "bng"}
	source, arrival := netip.MustParseAddr("192.0.2.9"), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		kind, _ := a.Kind()
		var ev subscriber.Event
		if d.Decode(&ev, &a, kind, &bng, source, arrival); ev.AcctSessionID == "" {
			b.Fatal("lost")
		}
	}
}

// BenchmarkStageSign measures making a reply.
func BenchmarkStageSign(b *testing.B) {
	p, secret, s := Packet(sample()), []byte("secret"), NewSigner()
	var room [HeaderLen]byte
	b.ReportAllocs()
	for b.Loop() {
		s.Sign(AppendReply(room[:0], p, HeaderLen), p.Authenticator(), secret)
	}
}
