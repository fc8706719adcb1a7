package lsn

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/sessiond/sessiond/internal/nat"
)

// TestShare: Share changes no value of a binding's holder, and makes equal strings share
// their memory.
func TestShare(t *testing.T) {
	e, err := New([]GroupConfig{{
		Name: "g", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/24")},
		Outside: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/30")}, BlockSize: 1024, FirstPort: 1024, LastPort: 65535,
		Hold: time.Minute,
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := nat.Holder{Inside: netip.MustParseAddr("100.64.0.1"), Identity: "u:alice", UserName: "alice", AcctSessionID: "1"}
	if _, err := e.Allocate("g", h, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	other := nat.Holder{Inside: h.Inside, Identity: strings.Clone(h.Identity), UserName: "bob", AcctSessionID: strings.Clone(h.AcctSessionID)}
	e.Share("g", other)
	e.Share("g", nat.Holder{Inside: netip.MustParseAddr("100.64.0.2")}) // an address without a binding
	b, ok := e.Live("g", h.Inside)
	if !ok || b.Holder != h {
		t.Fatalf("%+v, %t; want %+v", b.Holder, ok, h)
	}
	if unsafe.StringData(b.Identity) != unsafe.StringData(other.Identity) {
		t.Error("the identity is kept twice")
	}
}
