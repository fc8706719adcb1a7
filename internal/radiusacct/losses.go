package radiusacct

import (
	"sync"
	"sync/atomic"
)

// Losses counts what was lost beside the requests that an Observer is told of.
type Losses struct {
	Datagrams uint64 // the kernel dropped them at a socket: it was full, and nobody has seen them
	Replies   uint64 // the kernel did not take them; a retransmission finds them in the cache
	Accepts   uint64 // RadSec connections that the system did not give, for want of files and the like
}

type losses struct {
	replies, accepts atomic.Uint64

	mu        sync.Mutex
	datagrams uint64
	seen      []uint32 // drops of each socket, as the kernel counted them last
}

// Losses returns what was lost so far.
func (s *Server) Losses() Losses {
	return Losses{
		Datagrams: s.losses.dropped(s.sockets), Replies: s.losses.replies.Load(), Accepts: s.losses.accepts.Load(),
	}
}

// dropped sums up what the kernel has dropped. Its counters have 32 bits and wrap. A
// socket that does not tell, as a closed one, adds nothing.
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
