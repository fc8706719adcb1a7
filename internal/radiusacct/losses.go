package radiusacct

import (
	"sync"
	"sync/atomic"
)

// Losses counts losses that an Observer does not see.
type Losses struct {
	Datagrams uint64 // the kernel dropped them unread, because the socket's buffer was full
	Replies   uint64 // the kernel refused to send them; a retransmission finds them in the cache
	Accepts   uint64 // accept(2) failed, for want of file descriptors for example
}

type losses struct {
	replies, accepts atomic.Uint64

	mu        sync.Mutex
	datagrams uint64
	seen      []uint32 // last drop counter of each socket
}

// Losses returns the losses since New.
func (s *Server) Losses() Losses {
	return Losses{
		Datagrams: s.losses.dropped(s.sockets), Replies: s.losses.replies.Load(), Accepts: s.losses.accepts.Load(),
	}
}

// dropped sums up the datagrams that the kernel has dropped. Its counters have 32 bits and
// wrap. A socket whose counter cannot be read, such as a closed one, adds nothing.
func (l *losses) dropped(sockets []*socket) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = make([]uint32, len(sockets))
	}
	for i, sock := range sockets {
		drops, err := sock.batches.Drops()
		if err != nil {
			continue
		}
		l.datagrams += uint64(drops - l.seen[i])
		l.seen[i] = drops
	}
	return l.datagrams
}
