package nftnat

import (
	"context"
	"log/slog"
)

// Fill is how full the conntrack table of the namespace is, and who is kept from filling it.
type Fill struct {
	Entries, Limit int // of all addresses; a limit of 0 is unknown
	Full           int // subscribers that open no new sessions, since they have too many
}

// Fill tells how full things are. It needs Run.
func (k *Kernel) Fill() Fill {
	f := Fill{Full: len(k.crowded().began)}
	if last := k.fill.Load(); last != nil {
		f.Entries, f.Limit = last.Entries, last.Limit
	}
	return f
}

// Shares of its limit at which the conntrack table is told to fill, in percent, and below
// which it is well again.
const fillWarning, fillAlarm, fillWell = 80, 95, 75

// lookAtFill reads how full the conntrack table is, and says so when that matters: at its
// limit the kernel drops new flows of everybody, and tells nobody but its own log.
func (k *Kernel) lookAtFill(ctx context.Context) error {
	entries, limit, err := k.flows.Fill(ctx)
	if err != nil {
		return err
	}
	k.fill.Store(&Fill{Entries: entries, Limit: limit})
	k.tellFill(ctx, entries, limit)
	return nil
}

// tellFill logs each share once on the way up, and when all is well again.
func (k *Kernel) tellFill(ctx context.Context, entries, limit int) {
	if limit == 0 {
		return
	}
	share, told := 100*entries/limit, k.fillTold
	switch {
	case share >= fillAlarm:
		k.fillTold = fillAlarm
	case share >= fillWarning:
		k.fillTold = max(told, fillWarning)
	case share < fillWell:
		k.fillTold = 0
	}
	if k.fillTold == told {
		return
	}
	level, text := slog.LevelWarn, "the conntrack table fills: at its limit new flows of everybody are dropped; raise net.netfilter.nf_conntrack_max, and see who has the most (sessionctl session count)"
	switch k.fillTold {
	case 0:
		level, text = slog.LevelInfo, "the conntrack table has room again"
	case fillAlarm:
		level = slog.LevelError
	}
	k.log.Log(ctx, level, text, "entries", entries, "limit", limit)
}
