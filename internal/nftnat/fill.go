package nftnat

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/sessiond/sessiond/internal/conntrack"
)

// Fill is the fill of the namespace's conntrack table, and the number of subscribers that are
// kept from filling it.
type Fill struct {
	Entries, Limit int // of all addresses; a limit of 0 is unknown
	Full           int // subscribers that open no new sessions, because they have too many
}

// Fill returns the fill that Run reads once a second.
func (k *Kernel) Fill() Fill {
	f := Fill{Full: len(k.crowded().began)}
	if last := k.fill.last.Load(); last != nil {
		f.Entries, f.Limit = last.Entries, last.Limit
	}
	return f
}

// Shares of the conntrack table's limit, in percent: above the first two it is logged as
// filling, below the last as well again.
const fillWarning, fillAlarm, fillWell = 80, 95, 75

// fillWatch reads the fill of the conntrack table, and logs it near the limit: at the limit
// the kernel drops new flows of all subscribers, and reports that only in its own log.
type fillWatch struct {
	flows *conntrack.Table
	log   *slog.Logger
	last  atomic.Pointer[Fill] // without Full
	told  int                  // the share last logged
}

func (w *fillWatch) look(ctx context.Context) error {
	entries, limit, err := w.flows.Fill(ctx)
	if err != nil {
		return err
	}
	w.last.Store(&Fill{Entries: entries, Limit: limit})
	w.tell(ctx, entries, limit)
	return nil
}

// tell logs each share once on the way up, and once when the table is well again.
func (w *fillWatch) tell(ctx context.Context, entries, limit int) {
	if limit == 0 {
		return
	}
	share, told := 100*entries/limit, w.told
	switch {
	case share >= fillAlarm:
		w.told = fillAlarm
	case share >= fillWarning:
		w.told = max(told, fillWarning)
	case share < fillWell:
		w.told = 0
	}
	if w.told == told {
		return
	}
	level, text := slog.LevelWarn, "the conntrack table fills: at its limit new flows of everybody are dropped; raise net.netfilter.nf_conntrack_max, and see who has the most (sessionctl session count)"
	switch w.told {
	case 0:
		level, text = slog.LevelInfo, "the conntrack table has room again"
	case fillAlarm:
		level = slog.LevelError
	}
	w.log.Log(ctx, level, text, "entries", entries, "limit", limit)
}
