package acctload

import (
	"bytes"
	"testing"

	"layeh.com/radius"
)

// sound answers a request as layeh.com/radius does.
func sound(request []byte) []byte {
	p, err := radius.Parse(request, secret)
	if err != nil {
		panic("acctload: " + err.Error())
	}
	b, err := p.Response(radius.CodeAccountingResponse).Encode()
	if err != nil {
		panic("acctload: " + err.Error())
	}
	return b
}

// asked takes an identifier for a request.
func asked(w *window, tmpl *template, session uint64) (byte, []byte) {
	id, x := w.reserve()
	x.request = tmpl.fill(x.buffer, id, &event{kind: KindStart, session: session})
	return id, bytes.Clone(x.request)
}

func TestJudge(t *testing.T) {
	tmpl := newTemplate(&Options{Secret: secret}, "bng", KindStart)
	w := newWindow(len(tmpl.octets))
	judge := func(datagram []byte) finding {
		f, _ := w.judge(append(make([]byte, 0, 4200), datagram...), secret)
		return f
	}
	expect := func(name string, datagram []byte, want finding) {
		t.Helper()
		if got := judge(datagram); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	id, request := asked(w, tmpl, 1)
	good := sound(request)
	expect("reply", good, genuine)
	expect("padded reply", append(bytes.Clone(good), 1, 2, 3), genuine)
	expect("short", good[:19], malformed)
	expect("length beyond datagram", append([]byte{5, id, 0, 21}, good[4:]...), malformed)
	expect("broken attribute", append([]byte{5, id, 0, 22}, append(bytes.Clone(good[4:]), 33, 1)...), malformed)
	expect("other code", append([]byte{3}, good[1:]...), wrongCode)
	expect("never asked", append([]byte{5, id + 1}, good[2:]...), forged)
	flipped := bytes.Clone(good)
	flipped[7] ^= 1
	expect("authenticator", flipped, forged)

	w.release(id)
	expect("second reply", good, late)
	for next := byte(255); next != id; {
		next, _ = asked(w, tmpl, 2)
	}
	expect("second reply to the request before", good, late)
	expect("forged, before and after", flipped, forged)
}

// TestWindowReusesOldestFirst walks identifiers through the ring.
func TestWindowReusesOldestFirst(t *testing.T) {
	w := newWindow(0)
	var taken []byte
	for range 200 {
		id, _ := w.reserve()
		taken = append(taken, id)
	}
	for _, id := range taken {
		w.release(id)
	}
	for want := 200; want < 256; want++ {
		if id, _ := w.reserve(); int(id) != want {
			t.Fatalf("took %d, want %d", id, want)
		}
	}
	for _, want := range taken {
		if id, _ := w.reserve(); id != want {
			t.Fatalf("took %d, want %d", id, want)
		}
	}
	if !w.full() {
		t.Error("the window is not full")
	}
}
