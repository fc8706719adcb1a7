package udpbatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const patience = 5 * time.Second

func listen(t testing.TB, network, address string) (*net.UDPConn, *Conn) {
	t.Helper()
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	u := pc.(*net.UDPConn)
	t.Cleanup(func() { u.Close() })
	if err := u.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	c, err := New(u)
	if err != nil {
		t.Fatal(err)
	}
	return u, c
}

// addressTo returns an Address as the kernel would report it to a socket of the
// given family.
func addressTo(to netip.AddrPort, inet6 bool) (a Address) {
	binary.BigEndian.PutUint16(a.raw[2:], to.Port())
	if !inet6 {
		binary.NativeEndian.PutUint16(a.raw[:], unix.AF_INET)
		copy(a.raw[4:], to.Addr().AsSlice())
		a.length = unix.SizeofSockaddrInet4
		return a
	}
	binary.NativeEndian.PutUint16(a.raw[:], unix.AF_INET6)
	octets := to.Addr().As16()
	copy(a.raw[8:], octets[:])
	a.length = unix.SizeofSockaddrInet6
	return a
}

// never has a Writer give up a message that cannot be sent, which fails the test.
func never(t testing.TB) func(error) bool {
	return func(err error) bool { t.Errorf("not sent: %v", err); return false }
}

// collect reads until n datagrams have come, and returns them sorted.
func collect(t *testing.T, u *net.UDPConn, c *Conn, n int) []string {
	t.Helper()
	u.SetReadDeadline(time.Now().Add(patience))
	r := c.NewReader(16, 1<<16, 0)
	var got []string
	for len(got) < n {
		ds, err := r.Read()
		if err != nil {
			t.Fatalf("%d of %d came: %v", len(got), n, err)
		}
		for _, d := range ds {
			got = append(got, string(d.Octets))
		}
	}
	slices.Sort(got)
	return got
}

// stray reports datagrams beyond the expected ones. Over loopback, all sent
// datagrams have arrived by now.
func stray(t *testing.T, u *net.UDPConn) {
	t.Helper()
	u.SetReadDeadline(time.Now().Add(-time.Second))
	if n, _, err := u.ReadFromUDPAddrPort(make([]byte, 1<<16)); err == nil {
		t.Errorf("%d octets came besides", n)
	}
}

// mixture returns different datagrams of few sizes.
func mixture(r *rand.Rand, n int) [][]byte {
	sizes := []int{20, 20, 20, 20, 58, 273, maxSegment, maxSegment + 1, 4096}
	all := make([][]byte, n)
	for i := range all {
		all[i] = bytes.Repeat([]byte{byte(i)}, sizes[r.IntN(len(sizes))])
		binary.BigEndian.PutUint32(all[i], uint32(i))
	}
	return all
}

var transports = []struct{ name, from, to, fromNetwork, toNetwork string }{
	{"IPv4", "127.0.0.1:0", "127.0.0.1:0", "udp4", "udp4"},
	{"IPv6", "[::1]:0", "[::1]:0", "udp6", "udp6"},
	{"IPv4 from a socket of both families", ":0", "127.0.0.1:0", "udp", "udp4"},
}

// TestEachArrivesOnce sends datagrams of mixed sizes to several receivers, with
// the kernel cutting segments, joining them, both, and neither.
func TestEachArrivesOnce(t *testing.T) {
	for _, transport := range transports {
		for _, cut := range []bool{true, false} {
			for _, join := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, cut %v, join %v", transport.name, cut, join), func(t *testing.T) {
					from, sender := listen(t, transport.fromNetwork, transport.from)
					if !sender.segments.Load() {
						t.Fatal("the kernel cuts no segments")
					}
					sender.segments.Store(cut)
					inet6 := from.LocalAddr().(*net.UDPAddr).IP.To4() == nil
					exchangeAll(t, sender, inet6, transport.toNetwork, transport.to, join)
				})
			}
		}
	}
}

func exchangeAll(t *testing.T, sender *Conn, inet6 bool, network, address string, join bool) {
	const receivers, each = 3, 200
	random := rand.New(rand.NewPCG(1, 2))
	w := sender.NewWriter(64, never(t))
	var sockets [receivers]*net.UDPConn
	var conns [receivers]*Conn
	var sent [receivers][][]byte
	for i := range receivers {
		sockets[i], conns[i] = listen(t, network, address)
		if join {
			if err := conns[i].Coalesce(); err != nil {
				t.Fatal(err)
			}
		}
		sent[i] = mixture(random, each)
	}
	for i := range each {
		for j := range receivers {
			to := sockets[j].LocalAddr().(*net.UDPAddr).AddrPort()
			w.Add(Datagram{Octets: sent[j][i], Peer: addressTo(to, inet6)})
		}
	}
	w.Flush()
	for j := range receivers {
		var want []string
		for _, b := range sent[j] {
			want = append(want, string(b))
		}
		slices.Sort(want)
		if got := collect(t, sockets[j], conns[j], each); !slices.Equal(got, want) {
			t.Errorf("receiver %d got other datagrams than were sent", j)
		}
		stray(t, sockets[j])
	}
}

// TestTrains checks which datagrams go together.
func TestTrains(t *testing.T) {
	_, c := listen(t, "udp4", "127.0.0.1:0")
	w := c.NewWriter(256, never(t))
	a, b := addressTo(netip.MustParseAddrPort("127.0.0.1:1"), false), addressTo(netip.MustParseAddrPort("127.0.0.1:2"), false)
	way := make([]byte, 32)
	for range 70 {
		w.Add(Datagram{Octets: make([]byte, 20), Peer: a})
		w.Add(Datagram{Octets: make([]byte, 20), Peer: b})
		w.Add(Datagram{Octets: make([]byte, 22), Peer: b, Control: way})
	}
	w.Add(Datagram{Octets: make([]byte, 4000), Peer: a})
	w.Add(Datagram{Octets: make([]byte, 4000), Peer: a})
	w.arrange()
	var counts []int
	for _, t := range w.trains {
		counts = append(counts, t.count)
	}
	if want := []int{64, 64, 64, 6, 6, 6, 1, 1}; !slices.Equal(counts, want) {
		t.Errorf("trains are %v, want %v", counts, want)
	}
}

// TestRefusedSegments uses a socket without checksums, for which the kernel
// refuses to cut segments, but only when sending.
func TestRefusedSegments(t *testing.T) {
	_, sender := listen(t, "udp4", "127.0.0.1:0")
	if err := sender.set(unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	exchangeAll(t, sender, false, "udp4", "127.0.0.1:0", false)
	if sender.segments.Load() {
		t.Error("the next flush would try again")
	}
}

// TestErrorsAreTold sends one datagram to port 0 among others.
func TestErrorsAreTold(t *testing.T) {
	_, sender := listen(t, "udp4", "127.0.0.1:0")
	u, receiver := listen(t, "udp4", "127.0.0.1:0")
	good := addressTo(u.LocalAddr().(*net.UDPAddr).AddrPort(), false)
	bad := addressTo(netip.MustParseAddrPort("127.0.0.1:0"), false)
	var told []error
	w := sender.NewWriter(8, func(err error) bool { told = append(told, err); return false })
	w.Add(Datagram{Octets: []byte("one"), Peer: good})
	w.Add(Datagram{Octets: []byte("lost"), Peer: bad})
	w.Add(Datagram{Octets: []byte("two"), Peer: good, Control: nil})
	w.Flush()
	if len(told) != 1 || !errors.Is(told[0], unix.EINVAL) {
		t.Errorf("told of %v, want EINVAL once", told)
	}
	if got := collect(t, u, receiver, 2); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("%q came", got)
	}
}

// TestControl passes control messages beside segments: the source address is
// the requested one, and comes with each datagram.
func TestControl(t *testing.T) {
	for _, inet6 := range []bool{false, true} {
		network, any, local := "udp4", "0.0.0.0:0", netip.MustParseAddr("127.0.0.3")
		if inet6 {
			network, any, local = "udp6", "[::]:0", netip.IPv6Loopback()
		}
		_, sender := listen(t, network, any)
		u, receiver := listen(t, network, any)
		if err := errors.Join(receiver.Coalesce(), receiver.Stamp()); err != nil {
			t.Fatal(err)
		}
		control := askDestination(t, u, inet6, local)
		to := netip.AddrPortFrom(local, u.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		w := sender.NewWriter(16, never(t))
		for range 16 {
			w.Add(Datagram{Octets: []byte("reply"), Peer: addressTo(to, inet6), Control: control})
		}
		w.Flush()
		u.SetReadDeadline(time.Now().Add(patience))
		r := receiver.NewReader(4, 1<<16, 64)
		for n := 0; n < 16; {
			ds, err := r.Read()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range ds {
				n++
				if from := d.Peer.AddrPort().Addr(); from != local {
					t.Errorf("from %v, want %v", from, local)
				}
				if len(d.Control) != len(control) {
					t.Errorf("%d octets of control messages, want %d", len(d.Control), len(control))
				}
			}
		}
	}
}

// TestStamp: a datagram that waits to be read has the time at which it arrived.
func TestStamp(t *testing.T) {
	_, sender := listen(t, "udp4", "127.0.0.1:0")
	u, receiver := listen(t, "udp4", "127.0.0.1:0")
	if err := receiver.Stamp(); err != nil {
		t.Fatal(err)
	}
	const waits = 5 * time.Millisecond
	w, r := sender.NewWriter(1, never(t)), receiver.NewReader(1, 100, 0)
	u.SetReadDeadline(time.Now().Add(patience))
	for {
		before := time.Now()
		w.Add(Datagram{Octets: []byte("hello"), Peer: addressTo(u.LocalAddr().(*net.UDPAddr).AddrPort(), false)})
		w.Flush()
		after := time.Now()
		for time.Since(after) < waits {
			runtime.Gosched()
		}
		ds, err := r.Read()
		if err != nil {
			t.Fatalf("no datagram was stamped as it arrived: %v", err)
		}
		if at := ds[0].Arrived; !at.Before(before.Round(0)) && !at.After(after.Round(0)) {
			return // the kernel stamps now
		} else if !at.After(after.Round(0).Add(waits)) {
			t.Fatalf("arrived at %v, was sent at %v", at, before)
		}
	}
}

// askDestination turns packet information on, and returns the control message
// that sets the source address.
func askDestination(t *testing.T, u *net.UDPConn, inet6 bool, source netip.Addr) []byte {
	t.Helper()
	var err error
	var control []byte
	if inet6 {
		err = ipv6.NewPacketConn(u).SetControlMessage(ipv6.FlagDst, true)
		control = (&ipv6.ControlMessage{Src: source.AsSlice()}).Marshal()
	} else {
		err = ipv4.NewPacketConn(u).SetControlMessage(ipv4.FlagDst, true)
		control = (&ipv4.ControlMessage{Src: source.AsSlice()}).Marshal()
	}
	if err != nil {
		t.Fatal(err)
	}
	return control
}

func TestAddresses(t *testing.T) {
	for _, text := range []string{"192.0.2.1:1813", "[2001:db8::7]:1646"} {
		want := netip.MustParseAddrPort(text)
		for _, inet6 := range []bool{want.Addr().Is6(), true} {
			a := addressTo(want, inet6)
			if got := a.AddrPort(); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		}
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a := addressTo(netip.MustParseAddrPort("[fe80::1]:5"), true)
	binary.NativeEndian.PutUint32(a.raw[24:], uint32(lo.Index))
	if got := a.AddrPort().String(); got != "[fe80::1%lo]:5" {
		t.Errorf("got %s", got)
	}
	var none Address
	if none.AddrPort().IsValid() {
		t.Error("no address is one")
	}
}

// BenchmarkReplies sends 256 datagrams of 20 octets to one peer at once.
func BenchmarkReplies(b *testing.B) {
	for _, cut := range []bool{true, false} {
		b.Run(fmt.Sprintf("cut=%v", cut), func(b *testing.B) {
			_, sender := listen(b, "udp4", "127.0.0.1:0")
			u, _ := listen(b, "udp4", "127.0.0.1:0")
			sender.segments.Store(cut)
			to := addressTo(u.LocalAddr().(*net.UDPAddr).AddrPort(), false)
			w := sender.NewWriter(256, never(b))
			octets := make([]byte, 20)
			b.ReportAllocs()
			for b.Loop() {
				for range 256 {
					w.Add(Datagram{Octets: octets, Peer: to})
				}
				w.Flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/datagram")
		})
	}
}

// BenchmarkXNetReplies is BenchmarkReplies by the batches of golang.org/x/net.
func BenchmarkXNetReplies(b *testing.B) {
	from, _ := listen(b, "udp4", "127.0.0.1:0")
	u, _ := listen(b, "udp4", "127.0.0.1:0")
	batches := ipv4.NewPacketConn(from)
	messages := make([]ipv4.Message, 256)
	for i := range messages {
		messages[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 20)}, Addr: u.LocalAddr()}
	}
	b.ReportAllocs()
	for b.Loop() {
		for rest := messages; len(rest) > 0; {
			n, err := batches.WriteBatch(rest, 0)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/datagram")
}

// BenchmarkRequests reads batches whose senders are asked for; the time to send them is
// in it. BenchmarkXNetRequests does so by the batches of golang.org/x/net.
func BenchmarkRequests(b *testing.B) {
	u, receiver := listen(b, "udp4", "127.0.0.1:0")
	if err := receiver.Stamp(); err != nil {
		b.Fatal(err)
	}
	r := receiver.NewReader(64, 1<<12, 64)
	benchmarkRequests(b, u, func() int {
		all, err := r.Read()
		if err != nil {
			b.Fatal(err)
		}
		for i := range all {
			if !all[i].Peer.AddrPort().IsValid() {
				b.Fatal("sent by nobody")
			}
		}
		return len(all)
	})
}

func BenchmarkXNetRequests(b *testing.B) {
	u, _ := listen(b, "udp4", "127.0.0.1:0")
	batches := ipv4.NewPacketConn(u)
	messages := make([]ipv4.Message, 64)
	for i := range messages {
		messages[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 1<<12)}, OOB: make([]byte, 64)}
	}
	benchmarkRequests(b, u, func() int {
		n, err := batches.ReadBatch(messages, 0)
		if err != nil {
			b.Fatal(err)
		}
		for _, m := range messages[:n] {
			if !m.Addr.(*net.UDPAddr).AddrPort().IsValid() {
				b.Fatal("sent by nobody")
			}
		}
		return n
	})
}

func benchmarkRequests(b *testing.B, at *net.UDPConn, read func() int) {
	const batch = 64
	_, sender := listen(b, "udp4", "127.0.0.1:0")
	to := addressTo(at.LocalAddr().(*net.UDPAddr).AddrPort(), false)
	w, octets := sender.NewWriter(batch, never(b)), make([]byte, 150)
	b.ReportAllocs()
	for b.Loop() {
		for range batch {
			w.Add(Datagram{Octets: octets, Peer: to})
		}
		w.Flush()
		for n := 0; n < batch; {
			n += read()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/datagram")
}
