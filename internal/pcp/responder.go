package pcp

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/sessiond/sessiond/internal/pcp/wire"
	"github.com/sessiond/sessiond/internal/throttle"
)

// A Datagram is a request as it arrived.
type Datagram struct {
	Octets []byte
	Source netip.AddrPort // IPv4
	Local  netip.Addr     // the server's address that was asked
	Inside bool           // it came by an inside interface: subscribers ask by these, and others by others
}

// A Moment is a point in time by two clocks: lifetimes are told by the wall, and epochs by a clock
// that nobody sets (RFC 6887 section 8.5).
type Moment struct {
	Wall   time.Time
	Uptime time.Duration // since the server began
}

// An Observer counts. Its methods are called from several goroutines and must not block.
type Observer interface {
	// Request is called once for each datagram, with one of Opcodes, and one of Outcomes.
	Request(opcode, outcome string)
	// NonceMismatch is called for each request whose mapping has another nonce, be it refused or,
	// where the group is lenient, granted.
	NonceMismatch(group string)
	// Announced is called for each message that no request asked for, with one of Announcements.
	Announced(kind string)
}

// Outcomes of a datagram that gets no answer; any other one is the result code of its answer.
const (
	OutcomeMalformed   = "silent_malformed"    // no request, or cut short
	OutcomeStranger    = "silent_stranger"     // from no subscriber, or to no address of the server
	OutcomeRateLimited = "silent_rate_limited" // its client asked too often
	OutcomeOverload    = "silent_overload"     // more waited than there is room for
)

// Opcodes are the values of an Observer's opcode.
func Opcodes() []string {
	return []string{"announce", "map", "peer", "natpmp_address", "natpmp_map", "other"}
}

// Outcomes are the values of an Observer's outcome.
func Outcomes() []string {
	all := []string{OutcomeMalformed, OutcomeStranger, OutcomeRateLimited, OutcomeOverload}
	for _, r := range wire.Results() {
		all = append(all, r.String())
	}
	return all
}

// opcodeName returns the opcode of a datagram for the Observer.
func opcodeName(datagram []byte) string {
	names := []string{"announce", "map", "peer"}
	if wire.IsNATPMP(datagram) {
		names = []string{"natpmp_address", "natpmp_map", "natpmp_map"}
	}
	if len(datagram) < 2 || int(wire.OpcodeOf(datagram)) >= len(names) {
		return "other"
	}
	return names[wire.OpcodeOf(datagram)]
}

// Bounds of requests.
const (
	clientRate, clientBurst   = 20, 60   // of one client, a second and at once
	peerCost                  = 5        // requests that one of PEER counts as: it reads the sessions of a subscriber
	offlineRate, offlineBurst = 200, 200 // answers to addresses that are not online, together
	// requestTimeout is longer than a client waits before it asks again (RFC 6887 section 8.1.1).
	requestTimeout = 10 * time.Second
)

// A Responder answers requests. Its methods may be called from several goroutines.
type Responder struct {
	mappings Mappings
	observer Observer
	clients  clientTable
	offline  *rate.Limiter
	log      *slog.Logger
	failures throttle.Throttle // log lines about mappings that failed
}

// NewResponder returns a Responder.
func NewResponder(m Mappings, o Observer, log *slog.Logger) *Responder {
	return &Responder{
		mappings: m, observer: o, log: log,
		clients: newClientTable(), offline: rate.NewLimiter(offlineRate, offlineBurst),
	}
}

// An asked is a request with what is known of it.
type asked struct {
	*Datagram
	now    Moment
	client Client // of the source
	state  *clientState
	parsed bool // as a request of PCP
}

// parse reads a request of PCP.
func (a *asked) parse() (wire.Request, error) {
	request, err := wire.ParseRequest(a.Octets, a.Source.Addr())
	a.parsed = err == nil
	return request, err
}

// Answer returns the answer to a datagram, nil for silence. It waits for Mappings.
func (r *Responder) Answer(ctx context.Context, d *Datagram, now Moment) []byte {
	answer, outcome := r.answer(ctx, d, now)
	r.observer.Request(opcodeName(d.Octets), outcome)
	return answer
}

func (r *Responder) answer(ctx context.Context, d *Datagram, now Moment) (answer []byte, outcome string) {
	if len(d.Octets) < 2 {
		return nil, OutcomeMalformed
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	a := asked{Datagram: d, now: now}
	client, online := r.mappings.Client(d.Source.Addr())
	switch {
	case !d.Inside:
		return r.answerForThirdParty(ctx, &a)
	case client.Settings == nil: // any subscriber can send from an address of others
		return nil, OutcomeStranger
	case !online:
		if !r.offline.AllowN(now.limits(), 1) {
			return nil, OutcomeRateLimited
		}
		return r.refuseOffline(&a, client.Settings)
	}
	a.client = client
	if a.state = r.clients.note(&a); a.state == nil {
		return nil, OutcomeRateLimited
	}
	if wire.IsNATPMP(d.Octets) && client.Settings.NATPMP {
		return r.answerNATPMP(ctx, &a)
	}
	request, err := a.parse()
	if err == nil && !client.Settings.Enabled {
		err = wire.NotAuthorized
	}
	if err != nil {
		return r.fail(&a, err)
	}
	return r.serve(ctx, &a, &request)
}

// limits returns the moment for limiters of rates.
func (m Moment) limits() time.Time { return time.Unix(0, 0).Add(m.Uptime) }

// answerForThirdParty answers who does not ask by an inside interface: only those that may ask for
// others, and only then.
func (r *Responder) answerForThirdParty(ctx context.Context, a *asked) ([]byte, string) {
	request, err := a.parse()
	if errors.Is(err, wire.ErrSilence) {
		return nil, OutcomeMalformed
	}
	inside, ok := thirdParty(&request)
	if !ok {
		return nil, OutcomeStranger
	}
	if target, _ := r.mappings.Client(inside); !mayAskFor(&target, a.Source.Addr()) {
		return nil, OutcomeStranger
	}
	if a.state = r.clients.note(a); a.state == nil {
		return nil, OutcomeRateLimited
	}
	if err != nil {
		return r.fail(a, err)
	}
	return r.serve(ctx, a, &request)
}

// thirdParty returns the address that a request of MAP or PEER is for, if it names one.
func thirdParty(request *wire.Request) (inside netip.Addr, ok bool) {
	for _, o := range request.Options {
		if o.Code == wire.ThirdParty {
			return o.Inside, true
		}
	}
	return netip.Addr{}, false
}

// mayAskFor reports whether a source may ask for the client.
func mayAskFor(target *Client, source netip.Addr) bool {
	return target.Settings != nil && slices.ContainsFunc(target.Settings.ThirdParty, func(p netip.Prefix) bool { return p.Contains(source) })
}

// serve carries out a request that was parsed.
func (r *Responder) serve(ctx context.Context, a *asked, request *wire.Request) ([]byte, string) {
	answer := wire.Answer{Opcode: request.Opcode, Epoch: a.epoch(), Target: request.Target, Options: request.Options}
	if request.Opcode == wire.Announce {
		return wire.AppendAnswer(nil, &answer), wire.Success.String()
	}
	w, err := r.wishOf(a, request)
	if err == nil {
		err = r.carryOut(ctx, w, &answer)
	}
	if err != nil {
		return r.fail(a, err)
	}
	return wire.AppendAnswer(nil, &answer), wire.Success.String()
}

// A refusal is a result with a lifetime of its own.
type refusal struct {
	wire.Result
	lifetime time.Duration
}

// fail returns the answer to a request that failed.
func (r *Responder) fail(a *asked, err error) ([]byte, string) {
	if errors.Is(err, wire.ErrSilence) {
		return nil, OutcomeMalformed
	}
	result, lifetime := r.resultOf(err)
	return wire.AppendError(nil, a.Octets, a.parsed, result, wholeSeconds(lifetime), a.epoch()), result.String()
}

// resultOf returns the result that tells an error to a client.
func (r *Responder) resultOf(err error) (wire.Result, time.Duration) {
	if own, ok := errors.AsType[refusal](err); ok {
		return own.Result, own.lifetime
	}
	result, ok := errors.AsType[wire.Result](err)
	switch {
	case ok:
	case errors.Is(err, ErrQuota):
		result = wire.UserExQuota
	case errors.Is(err, ErrNotAuthorized):
		result = wire.NotAuthorized
	case errors.Is(err, ErrNotOnline):
		result = wire.NetworkFailure
	default: // ErrNoPort, ErrUnavailable, or anything else
		result = wire.NoResources
		r.logFailure(err)
	}
	return result, result.Lifetime()
}

// logFailure logs an error that nobody foresaw.
func (r *Responder) logFailure(err error) {
	if errors.Is(err, ErrNoPort) || errors.Is(err, ErrUnavailable) {
		return
	}
	if suppressed, ok := r.failures.Allow(time.Now()); ok {
		r.log.Warn("a mapping of a PCP client failed", "error", err, "suppressed", suppressed)
	}
}

// refuseOffline answers an address of a group that is not online: it may be soon.
func (r *Responder) refuseOffline(a *asked, s *GroupSettings) ([]byte, string) {
	if wire.IsNATPMP(a.Octets) && s.NATPMP {
		request, err := wire.ParseNATPMP(a.Octets)
		if err == nil {
			err = wire.NetworkFailure
		}
		return natpmpFailure(a, &request, err)
	}
	_, err := a.parse()
	if err == nil {
		err = wire.NetworkFailure
	}
	return r.fail(a, err)
}

// epoch returns the age of the client's state in seconds.
func (a *asked) epoch() uint32 {
	if a.state == nil {
		return 0
	}
	return a.state.epoch(a.client.Since, a.now)
}

// wholeSeconds rounds a duration to seconds, at least one of what is not over.
func wholeSeconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(min(max(1, d.Round(time.Second)/time.Second), math.MaxUint32))
}
