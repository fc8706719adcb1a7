package radiusacct

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Recorder makes events durable, in order. It returns one error for each event: nil
// promises that the event survives a crash, and only then is the request answered. After an
// error the request stays unanswered and its retransmission is recorded again, so events
// must be idempotent. [subscriber.ErrNoRecord] means that the event leaves nothing to keep;
// the request is answered. Record is called from several goroutines, never at once for
// events of one session. It must return soon after ctx ends, and must not keep the slice.
type Recorder interface {
	Record(ctx context.Context, events []subscriber.Event) []error
}

// An Observer counts requests and connections. Calls come from several
// goroutines and must not block.
type Observer interface {
	// Request is called once for each request, when its result is known. Client is the
	// configured name, empty when there is none; kind is one of the Type constants and
	// result one of the Result constants. Took is the time from receipt to reply, 0 without
	// a reply.
	Request(client, kind, result string, took time.Duration)
	// ConnectionOpened is called for each RadSec connection whose client is known.
	ConnectionOpened(client string)
	// ConnectionClosed is called when such a connection ends, with one of the
	// Closed constants of package radsec.
	ConnectionClosed(client, cause string)
	// ConnectionRefused is called for each other connection, with one of the
	// Refused constants of package radsec. Client is empty when there is none.
	ConnectionRefused(client, cause string)
}

// Options configures a Server.
type Options struct {
	// Listen holds UDP addresses, "IP:PORT" or ":PORT" (all addresses of both
	// families). "[::]:PORT" takes IPv6 only. Port 0 picks a free one. Required.
	Listen []string
	// ListenUDP opens the socket of an address of Listen, on the network udp, udp4 or udp6;
	// the default binds a new one.
	ListenUDP func(network, address string) (*net.UDPConn, error)
	// Clients are the permitted senders. None is valid: every sender is then unknown.
	Clients []Client
	// Recorder takes the events. Required.
	Recorder Recorder
	// RadSec adds accounting over TLS. Optional.
	RadSec *radsec.Options
	// Healthy returns why accounting cannot be recorded now, nil when it can. Meanwhile
	// Status-Server stays unanswered. It is called for each Status-Server, from several
	// goroutines, and must not block. The default is always healthy.
	Healthy func() error
	// IgnoreStatusServer leaves the Status-Server of all clients unanswered.
	IgnoreStatusServer bool
	// Observer counts requests and connections. Optional.
	Observer Observer
	// Logger is optional; the default discards.
	Logger *slog.Logger

	// Workers is the number of pairs of workers, one for storms and one for calm clients.
	// Each worker has at most one Record call at a time. The default is GOMAXPROCS, at
	// least 2: more workers make smaller batches, which cost more.
	Workers int
	// BatchSize bounds the events of one Record call; the default is 256.
	BatchSize int
	// QueueLength bounds the requests of one client, or of one realm of clients, that wait
	// for one pair of workers; further ones are dropped. The default is 4096.
	QueueLength int
	// StatusRate bounds the Status-Server of one client that are answered in a second; the
	// default is 20.
	StatusRate int
	// CacheBytes bounds the duplicate cache of one client, in octets; the
	// default is 32 MiB, about 150,000 replies.
	CacheBytes int
	// Grace bounds the time Run spends on requests in progress after its
	// context ended; the default is 5 seconds.
	Grace time.Duration
	// Now is the clock; the default is time.Now.
	Now func() time.Time
}

func (o *Options) validate() error {
	switch {
	case len(o.Listen) == 0:
		return errors.New("listen: no address given")
	case o.Recorder == nil:
		return errors.New("recorder is missing")
	case o.Workers < 0, o.BatchSize < 0, o.QueueLength < 0, o.StatusRate < 0, o.CacheBytes < 0, o.Grace < 0:
		return errors.New("workers, batch size, queue length, status rate, cache bytes and grace cannot be negative")
	}
	return nil
}

func (o *Options) setDefaults() {
	setDefault(&o.Workers, max(2, runtime.GOMAXPROCS(0)))
	setDefault(&o.BatchSize, 256)
	setDefault(&o.QueueLength, 4096)
	setDefault(&o.StatusRate, 20)
	setDefault(&o.CacheBytes, 32<<20)
	setDefault(&o.Grace, 5*time.Second)
	if o.ListenUDP == nil {
		o.ListenUDP = bindUDP
	}
	if o.Healthy == nil {
		o.Healthy = func() error { return nil }
	}
	if o.Observer == nil {
		o.Observer = nopObserver{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// nopObserver is the default Observer.
type nopObserver struct{}

func (nopObserver) Request(string, string, string, time.Duration) {}
func (nopObserver) ConnectionOpened(string)                       {}
func (nopObserver) ConnectionClosed(string, string)               {}
func (nopObserver) ConnectionRefused(string, string)              {}
