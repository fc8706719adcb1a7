package nftnat

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/sessiond/sessiond/internal/conntrack"
)

// Fill is how full the conntrack table of the namespace is, and who is kept from filling it.
type Fill struct {
	Entries, Limit int // of all addresses; a limit of 0 is unknown
	Full           int // subscribers that open no new sessions, since they have too many
}

// Fill tells how full things are. It needs Run.
func (k *Kernel) Fill() Fill {
	f := Fill{Full: len(k.crowded().began)}
	if last := k.fill.last.Load(); last != nil {
		f.Entries, f.Limit = last.Entries, last.Limit
	}
	return f
}

// Shares of its limit at which the conntrack table is told to fill, in percent, and below
// which it is well again.
const fillWarning, fillAlarm, fillWell = 80, 95, 75

// fillWatch reads how full the conntrack table is, and says so when that matters: at its
// limit the kernel drops new flows of everybody, and tells nobody but its own log.
type fillWatch struct {
	flows *conntrack.Table
	log   *slog.Logger
	last  atomic.Pointer[Fill] // without Full
	told  int                  // the share that was logged last
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

// tell logs each share once on the way up, and when all is well again.
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
