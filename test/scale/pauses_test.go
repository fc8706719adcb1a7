package scale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"
)

// noteworthy is the threshold above which Redis records commands and events, in milliseconds.
const noteworthy = 5

// A pause is the longest time in which Redis answered nothing, measured by a client of its
// own, with Redis's record of slow commands and events in that time.
type pause struct {
	longest time.Duration // 0 without a measurement
	command string        // the slowest, with its time; "" for none above the threshold
	events  string        // of the latency monitor, with their times
}

func (p pause) String() string {
	var parts []string
	if p.longest > 0 {
		parts = append(parts, fmt.Sprintf("%.1f ms", p.longest.Seconds()*1000))
	}
	for _, told := range []string{p.command, p.events} {
		if told != "" {
			parts = append(parts, told)
		}
	}
	return strings.Join(parts, "; ")
}

// A prober sends Redis a PING each millisecond, on a connection of its own.
type prober struct {
	fd   int
	stop chan struct{}
	task sync.WaitGroup

	mu      sync.Mutex
	silent  bool // it sends no PING for a while
	longest time.Duration
	err     error
}

// newProber connects to Redis by its unix socket. The caller must close the prober.
func newProber(socket string) (*prober, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	p := &prober{fd: fd, stop: make(chan struct{})}
	p.task.Go(p.run)
	return p, nil
}

func (p *prober) run() {
	// The thread ends with its goroutine. It has priority over all others, so that it
	// measures Redis and not its own wait for a processor.
	runtime.LockOSThread()
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	every := time.NewTicker(time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-every.C:
		}
		if err := p.probe(); err != nil {
			return
		}
	}
}

func (p *prober) probe() error {
	if p.isSilent() {
		return nil
	}
	took, err := p.ping()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest, p.err = max(p.longest, took), cmp.Or(p.err, err)
	return err
}

func (p *prober) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

// beSilent stops or resumes the PINGs.
func (p *prober) beSilent(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
}

func (p *prober) ping() (time.Duration, error) {
	began := time.Now()
	if _, err := unix.Write(p.fd, []byte("PING\r\n")); err != nil {
		return 0, err
	}
	var answer [7]byte
	for n := 0; n < len(answer); {
		more, err := unix.Read(p.fd, answer[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || more == 0 {
			return 0, fmt.Errorf("redis does not answer a PING: %w", cmp.Or(err, io.EOF))
		}
		n += more
	}
	return time.Since(began), nil
}

// take returns the longest pause since the last call.
func (p *prober) take() (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := p.longest
	p.longest = 0
	return longest, p.err
}

func (p *prober) close() error {
	close(p.stop)
	p.task.Wait()
	return unix.Close(p.fd)
}

// beginPause clears Redis's records of slow commands and events, and starts recording.
func beginPause(ctx context.Context, client *redis.Client, p *prober) error {
	for _, setting := range [][2]string{
		{"slowlog-log-slower-than", fmt.Sprint(noteworthy * 1000)}, {"slowlog-max-len", "1024"},
		{"latency-monitor-threshold", fmt.Sprint(noteworthy)},
	} {
		if err := client.ConfigSet(ctx, setting[0], setting[1]).Err(); err != nil {
			return err
		}
	}
	for _, command := range []string{"SLOWLOG", "LATENCY"} {
		if err := client.Do(ctx, command, "RESET").Err(); err != nil {
			return err
		}
	}
	_, err := p.take()
	return err
}

// endPause reads Redis's records since beginPause.
func endPause(ctx context.Context, client *redis.Client, p *prober) (pause, error) {
	slow, err := client.SlowLogGet(ctx, 1024).Result()
	if err != nil {
		return pause{}, err
	}
	events, err := client.Do(ctx, "LATENCY", "LATEST").Slice()
	if err != nil {
		return pause{}, err
	}
	longest, err := p.take() // last: a PING that waited is answered by now
	return pause{longest: longest, command: slowest(slow), events: describeEvents(events)}, err
}

// slowest names the slowest command.
func slowest(log []redis.SlowLog) string {
	if len(log) == 0 {
		return ""
	}
	worst := slices.MaxFunc(log, func(a, b redis.SlowLog) int { return cmp.Compare(a.Duration, b.Duration) })
	words := worst.Args[:min(len(worst.Args), 4)]
	for i, word := range words {
		words[i] = fmt.Sprintf("%.40s", word)
	}
	return fmt.Sprintf("%.1f ms %s", worst.Duration.Seconds()*1000, strings.Join(words, " "))
}

// describeEvents names events except those of commands, which slowest has: an event is its
// name, the time of the last one, its duration, and the longest duration (LATENCY LATEST).
func describeEvents(events []any) string {
	var texts []string
	for _, e := range events {
		fields, ok := e.([]any)
		if !ok || len(fields) < 4 || fields[0] == "command" || fields[0] == "fast-command" {
			continue
		}
		texts = append(texts, fmt.Sprintf("%d ms %v", fields[3], fields[0]))
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}
