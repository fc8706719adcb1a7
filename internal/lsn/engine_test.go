package lsn

import (
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

func TestGraceFor(t *testing.T) {
	c := GroupConfig{Grace: 30 * time.Second, GraceCauses: []uint32{2, 3}}
	for cause, want := range map[uint32]time.Duration{0: 0, 1: 0, 2: 30 * time.Second, 3: 30 * time.Second, 1 << 31: 0} {
		if got := c.GraceFor(cause); got != want {
			t.Errorf("cause %d: %v, want %v", cause, got, want)
		}
	}
	c.Grace = 0
	if got := c.GraceFor(2); got != 0 {
		t.Errorf("without a grace time: %v", got)
	}
}

// TestRestoreKeepsTimesAndReceipt_I7: a restored binding has its stored grace time and
// receipt, and the time at which its session got its first block, until it is held.
func TestRestoreKeepsTimesAndReceipt_I7(t *testing.T) {
	e, err := New([]GroupConfig{walkConfig()})
	if err != nil {
		t.Fatal(err)
	}
	b := nat.Binding{
		Group: "default", Blocks: nat.Blocks{Block: nat.Block{Outside: walkConfig().Outside[0].Addr(), First: 2048, Last: 3071}},
		Holder: nat.Holder{Inside: walkConfig().Inside[0].Addr().Next()}, State: nat.Draining,
		GraceUntil: time.Unix(60, 0).UTC(), AllocatedAt: time.Unix(30, 0).UTC(), FirstAt: time.Unix(20, 0).UTC(),
	}
	if err := e.Restore(b); err != nil {
		t.Fatal(err)
	}
	if got, _ := e.Live("default", b.Inside); got != b {
		t.Errorf("got %+v, want %+v", got, b)
	}
	if b.Since() != b.FirstAt {
		t.Errorf("served since %v, want %v", b.Since(), b.FirstAt)
	}
	held := b
	held.FirstAt = time.Time{}
	held.First, held.Last, held.State, held.GraceUntil = 3072, 4095, nat.Held, time.Time{}
	held.HoldUntil, held.Receipt = time.Unix(90, 0).UTC(), &nat.Receipt{Deleted: 7, Proof: nat.ProofIndex}
	if err := e.Restore(held); err != nil {
		t.Fatal(err)
	}
	if got, _ := e.AtOutside(held.Outside, held.First); got != held {
		t.Errorf("got %+v, want %+v", got, held)
	}
}
