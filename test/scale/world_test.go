package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/acctload"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// The subscribers of a run are those of one NAS, with addresses from inside on.
const (
	nasName = "scale"
	fewest  = 256     // one request outstanding each
	most    = 1 << 20 // addresses of inside
)

var inside = netip.MustParsePrefix("100.80.0.0/12")

// lookEvery is the interval of polling.
const lookEvery = 50 * time.Millisecond

// A world is a rig with room for n subscribers.
type world struct {
	*rig.Rig
	n     int
	redis *redis.Client

	bare, full int // elements without subscribers, and with all of them
}

func start(ctx context.Context, n int) (*world, error) {
	r, err := rig.Start(ctx, rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl, LogLevel: "info",
		BlockSize: 64, Hold: time.Hour, RecordTTL: 24 * time.Hour, // nothing expires during a run
		Lab: netlab.Options{Pool: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/21")}},
	})
	if err != nil {
		return nil, err
	}
	return &world{Rig: r, n: n, redis: redis.NewClient(&redis.Options{Network: "unix", Addr: r.Redis.Socket})}, nil
}

func (w *world) close() error {
	_ = w.redis.Close()
	return w.Rig.Close()
}

// learn finds the number of elements that the kernel has for a subscriber: it brings one
// online, and off again.
func (w *world) learn(ctx context.Context) (err error) {
	if w.bare, err = w.elements(); err != nil {
		return err
	}
	one := rig.Session{ID: "first", User: "first", Inside: netip.MustParseAddr("100.64.0.10")}
	if _, err := w.Online(ctx, one); err != nil {
		return err
	}
	with, err := w.elements()
	if err != nil {
		return err
	}
	if w.full = w.bare + w.n*(with-w.bare); w.full == w.bare {
		return fmt.Errorf("a subscriber that is online has no element")
	}
	if err := w.Offline(ctx, one); err != nil {
		return err
	}
	return w.awaitElements(ctx, w.bare)
}

// load brings all subscribers online by Starts, and waits until all are programmed. A run
// of acctload's Interims begins with one Start for each; these are used here.
func (w *world) load(ctx context.Context) error {
	server, err := netip.ParseAddrPort(w.Daemon.RADIUS)
	if err != nil {
		return err
	}
	if _, err := acctload.Run(ctx, acctload.Options{
		Server: server, Secret: []byte(rig.Secret), NAS: nasName, Inside: inside, Subscribers: w.n,
		Scenario: acctload.Interim, Concurrency: fewest, Sockets: 4, Duration: time.Millisecond, Transmissions: 10,
	}); err != nil {
		return err
	}
	return w.awaitElements(ctx, w.full)
}

// restartNAS ends all by an Accounting-Off, and waits until nothing is left.
func (w *world) restartNAS(ctx context.Context) error {
	if err := w.Send(ctx, acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_AccountingOff, NASIdentifier: nasName, EventTime: time.Now(),
	}); err != nil {
		return err
	}
	return w.await(ctx, "nothing to be left", func() (bool, error) {
		// The kernel is asked first, because its answer costs little.
		if n, err := w.elements(); n != w.bare || err != nil {
			return false, err
		}
		m, err := w.metrics(ctx)
		left := m[`sessiond_subscribers{group="default"}`]
		for _, state := range []string{"active", "draining", "cut"} {
			left += m[`sessiond_bindings{group="default",state="`+state+`"}`]
		}
		return left == 0, err
	})
}

// held counts the removals that a guard holds.
func (w *world) held(ctx context.Context) (float64, error) {
	m, err := w.metrics(ctx)
	held := 0.0
	for series, value := range m {
		if strings.HasPrefix(series, "sessiond_removals_held{") {
			held += value
		}
	}
	return held, err
}

// metrics reads all series.
func (w *world) metrics(ctx context.Context) (map[string]float64, error) {
	_, body, err := w.Daemon.Get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	m := map[string]float64{}
	for line := range strings.Lines(body) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if m[series+"}"], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
	}
	return m, nil
}

// await waits until the condition holds or ctx ends.
func (w *world) await(ctx context.Context, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// blocks are the owners of blocks, with the last port, by outside address and first port.
type blocks map[string]owner

type owner struct {
	Inside string
	Last   uint16
	Held   bool
}

// stored reads the owners of blocks from Redis. Held blocks have none.
func (w *world) stored(ctx context.Context) (blocks, error) {
	b := blocks{}
	keys := w.redis.ScanType(ctx, 0, "sessiond:{default}:bindings*", 1000, "hash").Iterator()
	for keys.Next(ctx) {
		fields := w.redis.HScan(ctx, keys.Val(), 0, "", 1000).Iterator()
		for fields.Next(ctx) {
			field := fields.Val()
			if !fields.Next(ctx) {
				break
			}
			var o owner
			if err := json.Unmarshal([]byte(fields.Val()), &o); err != nil {
				return nil, fmt.Errorf("%s %s: %w", keys.Val(), field, err)
			}
			if !o.Held {
				b[field] = o
			}
		}
		if err := fields.Err(); err != nil {
			return nil, err
		}
	}
	return b, keys.Err()
}

// differences counts the blocks that differ between the two, or are in one only.
func (b blocks) differences(other blocks) (n int) {
	for field, o := range b {
		if other[field] != o {
			n++
		}
	}
	for field := range other {
		if _, ok := b[field]; !ok {
			n++
		}
	}
	return n
}

// records counts the subscriber records in Redis.
func (w *world) records(ctx context.Context) (n int, err error) {
	keys := w.redis.Scan(ctx, 0, "sessiond:{default}:sub:*", 1000).Iterator()
	for keys.Next(ctx) {
		n++
	}
	return n, keys.Err()
}
