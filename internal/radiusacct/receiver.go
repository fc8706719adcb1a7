package radiusacct

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"layeh.com/radius"
)

const (
	// receiveBatch is the number of datagrams read in one system call.
	receiveBatch = 64
	// datagramLength exceeds the longest packet, so that a Length beyond the
	// datagram is told from one that was cut off here.
	datagramLength = radius.MaxPacketLength + 64
)

// A receiver takes in what comes to one UDP socket.
type receiver struct {
	*intake
	socket       *socket
	messages     []ipv4.Message
	outbox       *outbox
	destinations destinations
}

func newReceiver(s *Server, sock *socket) *receiver {
	outbox := newOutbox(sock, receiveBatch, s.replyFailed)
	return &receiver{
		intake:       newIntake(s, outbox),
		socket:       sock,
		messages:     newMessages(receiveBatch, datagramLength, controlLength),
		outbox:       outbox,
		destinations: destinations{ipv6: sock.LocalAddr().(*net.UDPAddr).IP.To4() == nil},
	}
}

// run reads until the socket fails, which a deadline in the past brings about.
func (r *receiver) run() error {
	for {
		n, err := r.socket.ReadBatch(r.messages, 0)
		if err != nil {
			return fmt.Errorf("receive on %s: %w", r.socket.LocalAddr(), err)
		}
		now := r.server.now()
		for i := range r.messages[:n] {
			r.receive(&r.messages[i], now)
		}
		r.outbox.flush()
	}
}

// receive handles one datagram to the point where it is refused, answered or queued.
func (r *receiver) receive(m *ipv4.Message, now time.Time) {
	from := m.Addr.(*net.UDPAddr).AddrPort()
	source := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	c := r.server.clients.Load().lookup(source.Addr())
	if c == nil {
		r.server.unknownClient(source, now)
		return
	}
	local := r.destinations.of(m.OOB[:m.NN])
	in := incoming{
		octets:     m.Buffers[0][:m.N],
		client:     c,
		duplicates: c.peer.duplicates,
		source:     source,
		local:      local.addr,
		way:        way{socket: r.socket.index, to: m.Addr, oob: local.oob},
		arrival:    now,
	}
	if kind, err := r.serve(&in); err != nil {
		r.server.refused(&in, kind, err)
	}
}
