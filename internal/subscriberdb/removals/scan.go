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

// scanner scans the hashes of online addresses for records that are gone. Its look-ups also
// make Redis expire records. It cannot find the reason of a removal; AnnounceDeleted does.
type scanner struct {
	watcher *Watcher
	gone    func(subscriber.Key, subscriber.Reason)
	always  bool // scan repeatedly, because the server does not notify
	walked  bool
	due     time.Time
}

// patience returns the time to wait for a notification before the scanner and the context
// are checked again.
func (p *scanner) patience() time.Duration {
	if !p.always {
		return settingPause
	}
	return min(settingPause, max(time.Until(p.due), time.Millisecond))
}

func (p *scanner) walkIfDue(ctx context.Context) error {
	if p.walked && (!p.always || time.Now().Before(p.due)) {
		return nil
	}
	began := time.Now()
	for _, group := range p.watcher.o.Groups() {
		if err := p.walk(ctx, group); err != nil {
			return err
		}
	}
	p.walked = true
	p.due = time.Now().Add(max(scanPause, scanShare*time.Since(began)))
	return nil
}

func (p *scanner) walk(ctx context.Context, group string) error {
	var inside []netip.Addr
	return p.watcher.o.Client.ScanHash(ctx, codec.OnlineKey(group), func(fields []string) error {
		inside = codec.AppendOnline(inside[:0], fields)
		gone, err := p.watcher.o.Gone(ctx, group, inside)
		if err != nil || len(gone) == 0 {
			return err
		}
		batch := make([]removal, len(gone))
		for i, a := range gone {
			batch[i] = removal{subscriber.Key{Group: group, Inside: a}, subscriber.ReasonNone}
		}
		_, err = p.check(ctx, batch)
		return err
	})
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
