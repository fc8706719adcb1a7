package removals

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// scanner scans the hashes of online addresses for records that are gone, one batch at a
// time, so that a notification waits for one batch and not for a scan of a million. Its
// look-ups also make Redis expire records. It cannot find the reason of a removal;
// AnnounceDeleted does.
type scanner struct {
	watcher *Watcher
	gone    func(subscriber.Key, subscriber.Reason)
	wanted  func(group string) bool // see WatchRemovals
	always  bool                    // scan repeatedly, because the server does not notify

	scanned map[string]bool // the groups that were scanned to the end
	group   string          // the group that is being scanned, "" for none
	cursor  uint64          // of its scan
	spent   time.Duration   // for the scans of all groups, without the time between batches
	due     time.Time       // of the repetition; zero unless all groups were scanned
}

func newScanner(w *Watcher, wanted func(string) bool, gone func(subscriber.Key, subscriber.Reason)) *scanner {
	return &scanner{watcher: w, wanted: wanted, gone: gone, scanned: map[string]bool{}}
}

// restart begins a scan of all groups.
func (p *scanner) restart() {
	clear(p.scanned)
	p.group, p.cursor, p.spent, p.due = "", 0, 0, time.Time{}
}

// patience returns the time to wait for a notification before the scanner and the context
// are checked again.
func (p *scanner) patience() time.Duration {
	switch {
	case p.group != "":
		return scanTurn
	case p.due.IsZero():
		return settingPause
	}
	return min(settingPause, max(time.Until(p.due), time.Millisecond))
}

// step scans the next batch, if a scan is due.
func (p *scanner) step(ctx context.Context) error {
	if p.group == "" && !p.chooseGroup() {
		return nil
	}
	began := time.Now()
	defer func() { p.spent += time.Since(began) }()
	fields, next, err := p.watcher.o.Client.ScanHashBatch(ctx, codec.OnlineKey(p.group), p.cursor)
	if err != nil {
		return err
	}
	if err := p.checkOnline(ctx, codec.AppendOnline(nil, fields)); err != nil {
		return err
	}
	if p.cursor = next; next == 0 {
		p.scanned[p.group], p.group = true, ""
	}
	return nil
}

// chooseGroup chooses the next group to scan, if there is one.
func (p *scanner) chooseGroup() bool {
	if !p.due.IsZero() && !time.Now().Before(p.due) {
		p.restart()
	}
	for _, group := range p.watcher.o.Groups() {
		if !p.scanned[group] && p.wanted(group) {
			p.group = group
			return true
		}
	}
	if p.always && p.due.IsZero() {
		p.due = time.Now().Add(max(scanPause, scanShare*p.spent))
	}
	return false
}

// checkOnline checks addresses that have an online entry.
func (p *scanner) checkOnline(ctx context.Context, inside []netip.Addr) error {
	gone, err := p.watcher.o.Gone(ctx, p.group, inside)
	if err != nil || len(gone) == 0 {
		return err
	}
	batch := make([]removal, len(gone))
	for i, a := range gone {
		batch[i] = removal{subscriber.Key{Group: p.group, Inside: a}, subscriber.ReasonNone}
	}
	_, err = p.check(ctx, batch)
	return err
}

// check calls gone for the records that are gone without an announcement, and reports
// whether there are any. Most records ended by a Stop, which removes the online entry: so
// that is checked first.
func (p *scanner) check(ctx context.Context, batch []removal) (found bool, err error) {
	batch, err = p.withEntry(ctx, batch)
	if err != nil || len(batch) == 0 {
		return false, err
	}
	pipe := p.watcher.o.Client.Pipeline()
	records := make([]*redis.IntCmd, len(batch))
	for i, r := range batch {
		records[i] = pipe.Exists(ctx, codec.RecordKey(r.key.Group, r.key.Inside))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return false, fmt.Errorf("check removed records: %w", err)
	}
	for i, r := range batch {
		if records[i].Val() == 0 {
			p.gone(r.key, r.reason)
			found = true
		}
	}
	return found, nil
}

// withEntry returns the records that still have an online entry, and so an end that is not
// announced. It sorts the batch by group.
func (p *scanner) withEntry(ctx context.Context, batch []removal) ([]removal, error) {
	slices.SortStableFunc(batch, func(a, b removal) int { return strings.Compare(a.key.Group, b.key.Group) })
	args := codec.NewArgs()
	defer args.Free()
	left := batch[:0]
	for rest := batch; len(rest) > 0; {
		group, n := rest[0].key.Group, 0
		args.List = append(args.List, "hmget", codec.OnlineKey(group))
		for ; n < len(rest) && rest[n].key.Group == group; n++ {
			args.Text = rest[n].key.Inside.AppendTo(args.Text)
			args.Cut()
		}
		cmd := redis.NewSliceCmd(ctx, args.List...)
		err := p.watcher.o.Client.Process(ctx, cmd)
		args.Reset()
		if err != nil {
			return nil, fmt.Errorf("check removed records: %w", err)
		}
		for i, value := range cmd.Val() {
			if value != nil {
				left = append(left, rest[i])
			}
		}
		rest = rest[n:]
	}
	return left, nil
}
