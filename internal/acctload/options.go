package acctload

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// identifiers is the largest number of outstanding requests of one socket:
// source port and one octet distinguish a request from others (RFC 2865 section
// 3).
const identifiers = 256

// maxAttributes bounds Options.Attributes in octets; with all others a request
// then fits into 4096 (RFC 2865 section 3).
const maxAttributes = 3500

// maxSockets bounds the damage of a mistyped number.
const maxSockets = 1024

// An Attribute is added unchanged to every request.
type Attribute struct {
	Type  uint8
	Value []byte // 1 to 253 octets
}

// Options are the requests to send, their server, and their pace. Either
// Concurrency or Rate is set.
type Options struct {
	// Server is the destination. Required.
	Server netip.AddrPort
	// Source is the source address. Optional.
	Source netip.Addr
	// Secret is shared with the server. Required.
	Secret []byte
	// NAS is the NAS-Identifier, 1 to 200 octets. Required.
	NAS string
	// NASAddress becomes the NAS-IP-Address. Optional, IPv4.
	NASAddress netip.Addr
	// Attributes are appended to every request.
	Attributes []Attribute
	// MessageAuthenticator adds one (RFC 3579 section 3.2) to every request.
	MessageAuthenticator bool

	// Scenario is the sequence of requests. Required.
	Scenario Scenario
	// Inside is the prefix of the subscribers' addresses. Required, IPv4.
	Inside netip.Prefix
	// Subscribers is their number; the default is 20,000.
	Subscribers int
	// Interims is the mean number of Interims of a session of Mix, 0 or more.
	Interims float64
	// RestartEvery is the least time between two restarts of a NAS in
	// NASRestart; the default is 10 seconds.
	RestartEvery time.Duration

	// Concurrency is the number of requests that are kept outstanding: a closed
	// loop, in which the server sets the pace.
	Concurrency int
	// Rate is the number of requests per second that become due, independently of
	// the server: an open loop. Latencies count from the due time.
	Rate float64
	// Even spaces the requests of an open loop evenly; otherwise their
	// distances are exponential (a Poisson process), as with many independent
	// subscribers.
	Even bool
	// Sockets is the number of source ports, each with 256 identifiers. The
	// default suits Concurrency or Rate.
	Sockets int

	// Warmup precedes the measurement. Optional.
	Warmup time.Duration
	// Duration of the measurement; the default is 10 seconds.
	Duration time.Duration

	// Timeout is the time to wait for a reply before the next transmission; the
	// default is 3 seconds.
	Timeout time.Duration
	// Transmissions is the largest number of transmissions of a request, always the
	// same octets; the default is 3. After the last one's timeout it is lost.
	Transmissions int
	// Backoff multiplies the timeout with each transmission; the default is 1.
	Backoff float64

	// Seed makes the choices repeatable. Session identifiers differ in each run.
	Seed uint64
}

// Validate fills in defaults and checks all options. The error names the option
// at fault.
func (o *Options) Validate() error {
	o.setDefaults()
	for _, check := range []func() error{o.checkRequests, o.checkSubscribers, o.checkPace} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) setDefaults() {
	setDefault(&o.Subscribers, 20_000)
	setDefault(&o.RestartEvery, 10*time.Second)
	setDefault(&o.Duration, 10*time.Second)
	setDefault(&o.Timeout, 3*time.Second)
	setDefault(&o.Transmissions, 3)
	setDefault(&o.Backoff, 1)
	setDefault(&o.Sockets, o.sockets())
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// sockets returns a default number of sockets: few, because batches are larger
// then; in an open loop enough identifiers for 100 ms without a reply.
func (o *Options) sockets() int {
	if o.Scenario == Flood {
		return 1
	}
	if o.Concurrency > 0 {
		return (o.Concurrency + identifiers - 1) / identifiers
	}
	return min(max(2, int(o.Rate/10/identifiers)+1), 64)
}

func (o *Options) checkRequests() error {
	switch {
	case !o.Server.IsValid() || o.Server.Port() == 0:
		return errors.New("server: an address and port are required")
	case o.Source.IsValid() && o.Source.Is4() != o.Server.Addr().Unmap().Is4():
		return errors.New("source: not of the server's address family")
	case len(o.Secret) == 0:
		return errors.New("secret: is empty")
	case o.NAS == "" || len(o.NAS) > 200:
		return errors.New("nas: must have 1 to 200 octets")
	case o.NASAddress.IsValid() && !o.NASAddress.Is4():
		return errors.New("nas address: must be IPv4")
	case o.Transmissions < 1 || o.Timeout <= 0 || o.Backoff < 1:
		return errors.New("transmissions and timeout must be above zero, backoff at least 1")
	}
	return o.checkAttributes()
}

func (o *Options) checkAttributes() error {
	room := maxAttributes
	for _, a := range o.Attributes {
		if a.Type == 0 || len(a.Value) == 0 || len(a.Value) > 253 {
			return fmt.Errorf("attribute %d: must have 1 to 253 octets", a.Type)
		}
		if room -= 2 + len(a.Value); room < 0 {
			return fmt.Errorf("attributes: more than %d octets together", maxAttributes)
		}
	}
	return nil
}

func (o *Options) checkSubscribers() error {
	var scenario Scenario
	if err := scenario.Set(string(o.Scenario)); err != nil {
		return fmt.Errorf("scenario: %w", err)
	}
	switch {
	case !o.Inside.IsValid() || !o.Inside.Addr().Is4():
		return errors.New("inside: an IPv4 prefix is required")
	case o.Subscribers < 1 || o.Subscribers > 1<<(32-o.Inside.Bits()):
		return fmt.Errorf("subscribers: %s holds 1 to %d", o.Inside, 1<<(32-o.Inside.Bits()))
	case o.Subscribers < max(o.Concurrency, o.Sockets):
		return fmt.Errorf("subscribers: %d are too few, each has one request outstanding at most; write at least %d, or a smaller concurrency",
			o.Subscribers, max(o.Concurrency, o.Sockets))
	case o.Interims < 0:
		return errors.New("interims: must not be negative")
	case o.RestartEvery < 0:
		return errors.New("restart interval: must not be negative")
	}
	return nil
}

func (o *Options) checkPace() error {
	switch {
	case o.Concurrency < 0 || o.Rate < 0 || (o.Concurrency > 0) == (o.Rate > 0):
		return errors.New("either concurrency or rate must be above zero")
	case o.Sockets < 1 || o.Sockets > maxSockets:
		return fmt.Errorf("sockets: must be 1 to %d", maxSockets)
	case o.Concurrency > o.Sockets*identifiers:
		return fmt.Errorf("concurrency: %d sockets carry %d requests at most", o.Sockets, o.Sockets*identifiers)
	case o.Concurrency > 0 && o.Concurrency < o.Sockets:
		return errors.New("sockets: more than concurrency")
	case o.Scenario == Flood && o.Rate == 0:
		return errors.New("a flood needs a rate")
	case o.Warmup < 0 || o.Duration <= 0:
		return errors.New("warm-up must not be negative, duration above zero")
	}
	return nil
}
