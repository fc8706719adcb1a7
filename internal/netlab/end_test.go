package netlab

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestEndAwaitsNumbers(t *testing.T) {
	t.Parallel()
	a, b := newEnds(t)
	for want := uint64(1); want <= 3; want++ {
		if n, err := a.Send(); n != want || err != nil {
			t.Fatalf("Send = %d, %v; want %d", n, err, want)
		}
		if err := b.Await(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.Received(); got != 3 {
		t.Errorf("Received = %d", got)
	}
}

func newEnds(t *testing.T) (a, b *End) {
	x, y := net.Pipe()
	a, b = NewEnd(x), NewEnd(y)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestEndGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := newEnds(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Await(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Await = %v", err)
		}
	})
}

func TestEndTellsWhenTheOtherIsGone(t *testing.T) {
	t.Parallel()
	a, b := newEnds(t)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Await(t.Context(), 1); !errors.Is(err, io.EOF) {
		t.Errorf("Await = %v", err)
	}
}

func TestEndTellsGarble(t *testing.T) {
	t.Parallel()
	x, y := net.Pipe()
	e := NewEnd(y)
	defer e.Close()
	defer x.Close()
	if _, err := x.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if err := e.Await(t.Context(), 1); err == nil {
		t.Error("no error for a number out of order")
	}
}
