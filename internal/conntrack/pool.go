package conntrack

import (
	"context"
	"errors"
	"sync"

	"github.com/sessiond/sessiond/internal/netns"
)

// keptConns is the number of idle request sockets that a pool keeps open.
const keptConns = 4

var errClosed = errors.New("conntrack table is closed")

// pool keeps sockets for requests.
type pool struct {
	space  netns.Namespace
	mu     sync.Mutex
	idle   []*conn
	closed bool
}

// with runs fn on a socket of its own. A socket on which fn failed is closed, because the
// rest of an answer may still be queued in it.
func (p *pool) with(ctx context.Context, fn func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := p.get()
	if err != nil {
		return err
	}
	stop := c.cancelWith(ctx)
	err = fn(c)
	if clean := stop(); !clean || err != nil {
		_ = c.close()
	} else {
		p.put(c)
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (p *pool) get() (*conn, error) {
	if c, err := p.idleConn(); c != nil || err != nil {
		return c, err
	}
	return dial(p.space, commandBuffer)
}

// idleConn returns an idle socket, nil when there is none.
func (p *pool) idleConn() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	n := len(p.idle)
	if n == 0 {
		return nil, nil
	}
	c := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c, nil
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= keptConns {
		_ = c.close()
		return
	}
	p.idle = append(p.idle, c)
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, c := range p.idle {
		errs = append(errs, c.close())
	}
	p.idle = nil
	return errors.Join(append(errs, p.space.Close())...)
}
