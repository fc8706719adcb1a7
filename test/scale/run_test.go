package scale

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// A result is the costs of one size. It lacks the figures of failed phases.
type result struct {
	n      int
	costs  map[string]float64 // by the names of rows
	pauses map[string]pause   // Redis's, by phase
	failed []error
}

// The phases of a run, each with a timeout of its own. After a failed one the others are
// measured all the same. Costs have the names of their phases.
var phases = []struct {
	name string
	do   func(r *runner, ctx context.Context, name string) error
}{
	{"load", (*runner).load},
	{"rest", (*runner).rest},
	{"kill", (*runner).kill},
	{"rest again", (*runner).rest},
	{"reboot", (*runner).reboot},
	{"reconcile", (*runner).reconcile},
	{"page", (*runner).pages},
	{"list", (*runner).list},
	{"peer", (*runner).peer},
	{"off", (*runner).off},
}

// A runner executes the phases in one world.
type runner struct {
	*world
	*result
	prober *prober
	idle   time.Duration // time for which the program is measured at rest
	before blocks        // after all subscribers are online
}

// run measures one size, and prints its progress.
func run(ctx context.Context, n int, idle time.Duration, progress io.Writer) *result {
	r := &runner{result: &result{n: n, costs: map[string]float64{}, pauses: map[string]pause{}}, idle: idle}
	if err := r.begin(ctx); err != nil {
		_ = r.fail("begin", err)
		return r.result
	}
	for _, p := range phases {
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, r.most())
		err := p.do(r, bounded, p.name)
		cancel()
		fmt.Fprintf(progress, "%d subscribers: %s, %.1f s\n", n, p.name, time.Since(began).Seconds())
		if err != nil {
			fmt.Fprintln(progress, "failed:", r.fail(p.name, err))
		}
	}
	if err := r.end(); err != nil {
		_ = r.fail("end", err)
	}
	return r.result
}

func (r *runner) begin(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if r.world, err = start(ctx, r.result.n); err != nil {
		return err
	}
	if r.prober, err = newProber(r.Redis.Socket); err != nil {
		return errors.Join(err, r.world.close())
	}
	if err := r.learn(ctx); err != nil {
		return errors.Join(err, r.end())
	}
	return nil
}

func (r *runner) end() error { return errors.Join(r.prober.close(), r.world.close()) }

// most returns the timeout of a phase: several times the need of a cost that is linear in
// the number, but less than that of a quadratic one.
func (r *runner) most() time.Duration {
	return time.Minute + 2*r.idle + time.Duration(r.result.n)*400*time.Microsecond
}

// fail records why a phase has no figures, without a daemon's whole log.
func (r *result) fail(name string, err error) error {
	reason, _, _ := strings.Cut(err.Error(), "\n")
	failure := fmt.Errorf("%d subscribers: %s: %s", r.n, name, reason)
	r.failed = append(r.failed, failure)
	return failure
}

// faults returns the failed phases, and figures that must be 0 and are not.
func (r *result) faults() []error {
	faults := slices.Clone(r.failed)
	for _, row := range rows {
		if value := r.costs[row.cost]; row.none && value != 0 {
			faults = append(faults, fmt.Errorf("%d subscribers: %s: %.0f", r.n, row.text, value))
		}
	}
	return faults
}

// measure records the duration of a function, the CPU time of sessiond and Redis in it,
// Redis's longest pause, and sessiond's peak memory: since the start of sessiond, if that
// is within it.
func (r *runner) measure(ctx context.Context, name string, do func(context.Context) error) error {
	before, err := r.cpuTimes()
	if err := errors.Join(err, resetPeak(r.Daemon.PID()), beginPause(ctx, r.redis, r.prober)); err != nil {
		return err
	}
	began := time.Now()
	if err := do(ctx); err != nil {
		return err
	}
	r.costs[name] = time.Since(began).Seconds()
	after, err := r.cpuTimes()
	if err != nil {
		return err
	}
	for i, process := range []string{"sessiond", "redis"} {
		r.costs[name+", "+process] = (after[i] - before[i]).Seconds()
	}
	peak, err := memory(r.Daemon.PID(), "VmHWM")
	if err != nil {
		return err
	}
	r.costs[name+", peak"] = peak / float64(r.result.n)
	r.pauses[name], err = endPause(ctx, r.redis, r.prober)
	return err
}

// cpuTimes returns the CPU times of sessiond and Redis.
func (r *runner) cpuTimes() (times [2]time.Duration, err error) {
	var errs [2]error
	times[0], errs[0] = cpuTime(r.Daemon.PID())
	times[1], errs[1] = cpuTime(r.Redis.PID())
	return times, errors.Join(errs[:]...)
}

func (r *runner) load(ctx context.Context, name string) (err error) {
	if err := r.measure(ctx, name, r.world.load); err != nil {
		return err
	}
	r.before, err = r.stored(ctx)
	if err == nil && len(r.before) != r.result.n {
		err = fmt.Errorf("%d blocks stored", len(r.before))
	}
	return err
}

// rest measures a program without work. Work from before has a quarter of the time to
// finish. Of Redis's pauses it takes only Redis's own record.
func (r *runner) rest(ctx context.Context, name string) error {
	if err := r.wait(ctx, r.idle/4); err != nil {
		return err
	}
	r.prober.beSilent(true) // its PINGs would be a good part of Redis's work
	defer r.prober.beSilent(false)
	if err := r.measure(ctx, name, func(ctx context.Context) error { return r.wait(ctx, r.idle) }); err != nil {
		return err
	}
	for _, process := range []string{"sessiond", "redis"} {
		r.costs[name+", share of "+process] = r.costs[name+", "+process] / r.costs[name]
	}
	resident, err := memory(r.Daemon.PID(), "VmRSS")
	r.costs[name+", memory"] = resident / float64(r.result.n)
	return err
}

func (r *runner) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (r *runner) kill(ctx context.Context, name string) error {
	if err := r.Daemon.Kill(); err != nil {
		return err
	}
	return r.comeBack(ctx, name)
}

// reboot kills the daemon and deletes its table.
func (r *runner) reboot(ctx context.Context, name string) error {
	if err := errors.Join(r.Daemon.Kill(), r.deleteTable(ctx)); err != nil {
		return err
	}
	return r.comeBack(ctx, name)
}

// comeBack starts the daemon, counts the kernel's elements as soon as it is ready, and then
// compares the blocks.
func (r *runner) comeBack(ctx context.Context, name string) error {
	there := 0
	if err := r.measure(ctx, name, func(ctx context.Context) (err error) {
		if err := r.Daemon.Start(ctx); err != nil {
			return err
		}
		there, err = r.elements()
		return err
	}); err != nil {
		return err
	}
	r.costs[name+", missing"] = float64(r.full - there)
	now, err := r.stored(ctx)
	r.costs[name+", changed"] = float64(r.before.differences(now))
	return err
}

// reconcile compares everything, and finds no difference: Redis, engine and kernel agree.
func (r *runner) reconcile(ctx context.Context, name string) error {
	var found lineCounter
	err := r.measure(ctx, name, func(ctx context.Context) error {
		return r.Daemon.CtlTo(ctx, &found, "--timeout", "1h", "-o", "json", "reconcile", "--dry-run")
	})
	r.costs[name+", differences"] = float64(found)
	return err
}

func (r *runner) list(ctx context.Context, name string) error {
	var listed lineCounter
	err := r.measure(ctx, name, func(ctx context.Context) error {
		return r.Daemon.CtlTo(ctx, &listed, "--timeout", "1h", "-o", "json", "subscriber", "list")
	})
	if err == nil && int(listed) != r.result.n {
		err = fmt.Errorf("%d subscribers listed", listed)
	}
	return err
}

// A lineCounter counts lines, as wc -l does.
type lineCounter int

func (c *lineCounter) Write(b []byte) (int, error) {
	*c += lineCounter(bytes.Count(b, []byte("\n")))
	return len(b), nil
}

// pages requests the first page of each list several times, and one subscriber by name.
func (r *runner) pages(ctx context.Context, name string) error {
	conn, err := r.Daemon.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	subscribers, nat := pb.NewSubscriberServiceClient(conn), pb.NewNatServiceClient(conn)
	const rows = 100
	user := ""
	for _, list := range []struct {
		name string
		ask  func() error
	}{
		{name, func() error {
			page, err := subscribers.ListSubscribers(ctx, &pb.ListSubscribersRequest{PageSize: rows})
			if err != nil || len(page.GetSubscribers()) != rows {
				return cmp.Or(err, fmt.Errorf("a page of %d", len(page.GetSubscribers())))
			}
			user = page.GetSubscribers()[rows-1].GetUserName()
			return nil
		}},
		{name + " of bindings", func() error {
			page, err := nat.ListBindings(ctx, &pb.ListBindingsRequest{PageSize: rows})
			if err == nil && len(page.GetBindings()) != rows {
				err = fmt.Errorf("a page of %d", len(page.GetBindings()))
			}
			return err
		}},
		{name + " of a user", func() error {
			page, err := subscribers.ListSubscribers(ctx, &pb.ListSubscribersRequest{PageSize: rows, UserName: user})
			if err == nil && len(page.GetSubscribers()) != 1 {
				err = fmt.Errorf("%d subscribers of one name", len(page.GetSubscribers()))
			}
			return err
		}},
	} {
		took, err := median(list.ask)
		if err != nil {
			return fmt.Errorf("%s: %w", list.name, err)
		}
		r.costs[list.name] = took
	}
	return nil
}

// median returns the median time of a call, in milliseconds.
func median(ask func() error) (float64, error) {
	var times [7]time.Duration
	for i := range times {
		began := time.Now()
		if err := ask(); err != nil {
			return 0, err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times[:])
	return times[len(times)/2].Seconds() * 1000, nil
}

// peer has nft load as many elements, while the program is at rest.
func (r *runner) peer(ctx context.Context, name string) (err error) {
	p, err := newPeer(r.Dir, r.result.n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	began := time.Now()
	if err := p.load(ctx); err != nil {
		return err
	}
	r.costs[name] = time.Since(began).Seconds()
	for _, start := range []string{"kill", "reboot"} {
		if ready, ok := r.costs[start]; ok {
			r.costs[start+", to peer"] = ready / r.costs[name]
		}
	}
	return nil
}

func (r *runner) off(ctx context.Context, name string) error {
	if err := r.measure(ctx, name, r.restartNAS); err != nil {
		return err
	}
	held, err := r.held(ctx)
	if err != nil {
		return err
	}
	left, err := r.records(ctx)
	if err != nil {
		return err
	}
	r.costs[name+", held"], r.costs[name+", left"] = held, float64(left)
	bound, err := r.stored(ctx)
	for tries := 5; err == nil && len(bound) > 0 && tries > 0; tries-- { // a write may be in progress
		bound, err = r.stored(ctx)
	}
	r.costs[name+", bound"] = float64(len(bound))
	return err
}
