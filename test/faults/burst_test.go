package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

const (
	senders    = 6                      // operations at once
	retransmit = 300 * time.Millisecond // a NAS's timeout for an answer
)

// A burst is the traffic of one round. Every operation is repeated until it is answered, as
// a NAS does, despite any fault.
type burst struct {
	w       *world
	tasks   sync.WaitGroup
	over    chan struct{} // closed once all are answered, or one failed
	started atomic.Int64  // operations begun
	tries   atomic.Int64  // requests sent, or commands run

	mu  sync.Mutex
	err error
}

// start begins to execute operations.
func (w *world) start(ctx context.Context, ops []op) *burst {
	b := &burst{w: w, over: make(chan struct{})}
	todo := make(chan op, len(ops))
	for _, o := range ops {
		todo <- o
	}
	close(todo)
	for range senders {
		b.tasks.Go(func() {
			for o := range todo {
				b.started.Add(1)
				if err := b.do(ctx, o); err != nil {
					b.fail(fmt.Errorf("%s: %w", o, err))
				}
			}
		})
	}
	go func() {
		b.tasks.Wait()
		close(b.over)
	}()
	return b
}

func (b *burst) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = errors.Join(b.err, err)
}

// wait waits for the last answer.
func (b *burst) wait() error {
	<-b.over
	b.w.told = time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// until waits until the condition holds or all operations have ended.
func (b *burst) until(ctx context.Context, what string, holds func() bool) error {
	return b.w.Until(ctx, what, func() (bool, error) {
		select {
		case <-b.over:
			return true, nil
		default:
			return holds(), nil
		}
	})
}

// awaitStarted waits until n operations have begun.
func (b *burst) awaitStarted(ctx context.Context, n int) error {
	return b.until(ctx, "operations to begin", func() bool { return b.started.Load() >= int64(n) })
}

// awaitTries waits until n more requests were sent.
func (b *burst) awaitTries(ctx context.Context, n int) error {
	from := b.tries.Load()
	return b.until(ctx, "requests to be sent", func() bool { return b.tries.Load() >= from+int64(n) })
}

func (b *burst) do(ctx context.Context, o op) error {
	switch o.kind {
	case opPool:
		return b.changePool(ctx, o)
	case opMapping:
		return b.changeMapping(ctx, o)
	case opDelete:
		return b.insist(ctx, func(ctx context.Context) error { return b.delete(ctx, o) })
	case opDEL:
		return b.insist(ctx, func(ctx context.Context) error { return b.w.db.Del(ctx, o.line.key()).Err() })
	case opExpire:
		return b.insist(ctx, func(ctx context.Context) error {
			return b.w.db.PExpire(ctx, o.line.key(), time.Millisecond).Err()
		})
	case opStart, opLostStart, opTakeover, opReconnect, opBrief, opClock, opTwin, opSetBack:
		o.session.start = b.w.now
	}
	if o.brief != nil {
		o.brief.sent = time.Now()
		defer func() { o.brief.answered = time.Now() }()
	}
	for _, t := range b.w.tellings(o) {
		if err := b.account(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// insist calls try until it succeeds, each time no longer than a NAS would wait.
func (b *burst) insist(ctx context.Context, try func(context.Context) error) error {
	var last error
	err := b.w.Until(ctx, "an answer", func() (bool, error) {
		b.tries.Add(1)
		once, cancel := context.WithTimeout(ctx, 5*retransmit)
		defer cancel()
		last = try(once)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return nil
}

// delete ends a record by gRPC. A repetition may find no record, because only the answer to
// the first request may have been lost.
func (b *burst) delete(ctx context.Context, o op) error {
	_, err := b.w.Daemon.Ctl(ctx, "subscriber", "delete", o.line.inside.String(), "--yes")
	if err != nil && strings.Contains(err.Error(), "no such subscriber") {
		return nil
	}
	return err
}

// account sends a request until it is answered, to sessiond's present address.
func (b *burst) account(ctx context.Context, t telling) error {
	return b.insist(ctx, func(ctx context.Context) error {
		address, _ := b.w.radius.Load().(string)
		c, err := acctclient.Dial(ctx, address, t.source+":0", acctclient.Options{
			Secret: []byte(rig.Secret), Timeout: retransmit, Transmissions: 1,
		})
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Account(ctx, t.now())
	})
}
