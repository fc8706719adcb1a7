package speed

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
)

// ears are a UDP socket on the internet host. Datagrams contain the number of their
// subscriber.
type ears struct {
	conn *net.UDPConn
	task sync.WaitGroup

	mu    sync.Mutex
	heard [sampled]hearing
	news  chan struct{} // closed and replaced when a subscriber is heard for the first time
}

// hearing is the time of a subscriber's first and last datagram.
type hearing struct{ first, last time.Time }

func listen(lab *netlab.Lab) (*ears, error) {
	conn, err := lab.Internet.ListenUDP(netip.AddrPortFrom(lab.Remotes[0], 0))
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(8 << 20)
	e := &ears{conn: conn, news: make(chan struct{})}
	e.task.Go(e.read)
	return e, nil
}

func (e *ears) read() {
	var datagram [8]byte
	for {
		n, _, err := e.conn.ReadFromUDPAddrPort(datagram[:])
		now := time.Now()
		if err != nil {
			return
		}
		if i := binary.BigEndian.Uint32(datagram[:]); n == 4 && i < sampled {
			e.note(i, now)
		}
	}
}

func (e *ears) note(i uint32, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := &e.heard[i]
	h.last = now
	if h.first.IsZero() {
		h.first = now
		close(e.news)
		e.news = make(chan struct{})
	}
}

func (e *ears) of(i int) hearing {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[i]
}

// await waits until a subscriber is heard.
func (e *ears) await(ctx context.Context, i int) error {
	for {
		e.mu.Lock()
		h, news := e.heard[i], e.news
		e.mu.Unlock()
		if !h.first.IsZero() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		}
	}
}

// Close closes the socket.
func (e *ears) Close() error {
	err := e.conn.Close()
	e.task.Wait()
	return err
}

// speak makes a subscriber send datagrams to the internet, at an interval, until ctx ends.
func (w *world) speak(ctx context.Context, i int, every time.Duration) error {
	conn, err := w.Lab.Subscriber.Dial(ctx, "udp4", netip.AddrPortFrom(subscriber(i), 0), w.ears.conn.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		return err
	}
	defer conn.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	datagram := binary.BigEndian.AppendUint32(nil, uint32(i))
	for {
		_, _ = conn.Write(datagram) // whether it is refused or dropped is measured
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
