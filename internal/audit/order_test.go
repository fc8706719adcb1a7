package audit

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestEntriesOfAnOrder: each entry has its part, and who, how and why.
func TestEntriesOfAnOrder(t *testing.T) {
	if _, ok, err := EntryFor(context.Background()); ok || err != nil {
		t.Error("an entry without an order", err)
	}
	order := &Order{Actor: Actor{"user:0", "admin", "unix"}, Method: "DeleteSubscribers", Reason: "ticket 7", RequestID: "r1"}
	ctx := With(context.Background(), order)
	for part := 1; part <= 2; part++ {
		e, ok, err := EntryFor(ctx)
		want := Entry{Actor: "user:0", Role: "admin", Source: "unix", Method: "DeleteSubscribers", Reason: "ticket 7", RequestID: "r1", Part: part, Outcome: Done}
		if !ok || err != nil || !equal(e, want) {
			t.Errorf("entry %+v, %v, want %+v", e, err, want)
		}
		order.Wrote()
	}
	e, _, _ := EntryFor(Reverting(ctx, errors.New("refused by the kernel")))
	if e.Outcome != TakenBack || e.Error != "refused by the kernel" || e.Part != 3 {
		t.Errorf("entry %+v of a change that is taken back", e)
	}
	order.ValidateOnly = true
	if _, _, err := EntryFor(ctx); !errors.Is(err, ErrValidateOnly) {
		t.Errorf("validate_only: %v", err)
	}
}

func equal(a, b Entry) bool {
	x, _, _ := Seal(a, Head{})
	y, _, _ := Seal(b, Head{})
	return x == y
}

// TestFilter: each field selects.
func TestFilter(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e := Entry{Actor: "user:0", Method: "AddPool", Group: "default", RequestID: "r1", At: at}
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Actor: "user:0", Method: "AddPool", Group: "default", RequestID: "r1", From: at, To: at.Add(1)}, true},
		{Filter{Actor: "user:1"}, false},
		{Filter{Method: "DrainPool"}, false},
		{Filter{Group: "east"}, false},
		{Filter{RequestID: "r2"}, false},
		{Filter{From: at.Add(1)}, false},
		{Filter{To: at}, false},
	} {
		if c.f.Match(&e) != c.want {
			t.Errorf("%+v: %v", c.f, !c.want)
		}
	}
}
