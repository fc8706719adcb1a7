package pcp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// A wish is a request of MAP or PEER, of its subscriber.
type wish struct {
	*wire.Request
	inside   netip.Addr
	client   Client // whose mapping it is: of the source, or of a third party
	existing Mapping
	exists   bool // of the inside port
	now      Moment
}

// wishOf finds whose mapping is asked for, and whether the group allows it.
func (r *Responder) wishOf(a *asked, request *wire.Request) (*wish, error) {
	w := &wish{Request: request, inside: a.Source.Addr(), client: a.client, now: a.now}
	if inside, ok := thirdParty(request); ok {
		target, online := r.mappings.Client(inside)
		switch {
		case !mayAskFor(&target, a.Source.Addr()):
			return nil, wire.UnsuppOption
		case !online:
			return nil, wire.NetworkFailure
		}
		w.inside, w.client = inside, target
	}
	settings := w.client.Settings
	switch {
	case !settings.Enabled, request.Opcode == wire.Map && !settings.Map, request.Opcode == wire.Peer && !settings.Peer:
		return nil, wire.NotAuthorized
	case settings.Filters == 0 && slices.ContainsFunc(request.Options, func(o wire.Option) bool { return o.Code == wire.FilterOption }):
		return nil, wire.UnsuppOption
	}
	w.existing, w.exists = find(r.mappings.List(w.inside), request.Protocol, request.InsidePort)
	return w, nil
}

// find returns the mapping of an inside port.
func find(list []Mapping, protocol uint8, port uint16) (Mapping, bool) {
	i := slices.IndexFunc(list, func(m Mapping) bool { return m.Protocol == protocol && m.Inside.Port() == port })
	if i < 0 {
		return Mapping{}, false
	}
	return list[i], true
}

// carryOut does what is wished, and completes the answer.
func (r *Responder) carryOut(ctx context.Context, w *wish, answer *wire.Answer) error {
	switch {
	case w.Opcode == wire.Peer:
		return r.peer(ctx, w, answer)
	case w.Lifetime == 0:
		return r.unmap(ctx, w)
	}
	m, err := r.mapPort(ctx, w)
	if err == nil {
		w.tell(&m, answer)
		answer.Lifetime = min(answer.Lifetime, wholeSeconds(w.lifetime())) // the request has waited
	}
	return err
}

// tell puts a mapping into an answer.
func (w *wish) tell(m *Mapping, answer *wire.Answer) {
	answer.Outside = m.Outside
	answer.Lifetime = wholeSeconds(w.remaining(m))
}

// remaining returns how long a mapping still lives. One without an end lives as long as is asked.
func (w *wish) remaining(m *Mapping) time.Duration {
	if m.Expires.IsZero() {
		return w.lifetime()
	}
	return max(time.Second, m.Expires.Sub(w.now.Wall))
}

// lifetime returns the lifetime that is asked for, within the bounds of the group, and not longer
// than the subscriber's record lives (RFC 6887 section 15).
func (w *wish) lifetime() time.Duration {
	most := w.client.Settings.MaxLifetime
	if !w.client.Until.IsZero() {
		most = min(most, max(time.Second, w.client.Until.Sub(w.now.Wall).Truncate(time.Second)))
	}
	asked := time.Duration(w.Lifetime) * time.Second
	return min(max(asked, w.client.Settings.MinLifetime), most)
}

// checkNonce compares the nonce with that of the existing mapping (RFC 6887 section 11.3).
func (r *Responder) checkNonce(w *wish) error {
	if !w.exists || w.existing.Static || w.existing.Nonce == w.Nonce {
		return nil
	}
	r.observer.NonceMismatch(w.client.Group)
	if w.client.Settings.LenientNonce {
		return nil
	}
	return refusal{wire.NotAuthorized, w.remaining(&w.existing)}
}

// mapPort creates or renews a mapping (RFC 6887 section 11.3).
func (r *Responder) mapPort(ctx context.Context, w *wish) (Mapping, error) {
	if err := r.checkNonce(w); err != nil {
		return Mapping{}, err
	}
	request := w.mapRequest()
	for _, o := range w.Options {
		switch o.Code {
		case wire.PreferFailure:
			request.PreferFailure = true
		case wire.FilterOption:
			request.Filters = addFilter(request.Filters, o.Filter)
		}
	}
	if len(request.Filters) > w.client.Settings.Filters {
		return Mapping{}, wire.ExcessiveRemotePeers
	}
	m, err := r.mappings.Map(ctx, request)
	if errors.Is(err, ErrNoPort) && request.PreferFailure {
		return m, wire.CannotProvideExternal
	}
	return m, err
}

// mapRequest returns the wish for Mappings, without options.
func (w *wish) mapRequest() MapRequest {
	return MapRequest{
		Inside: netip.AddrPortFrom(w.inside, w.InsidePort), Protocol: w.Protocol, Suggested: w.Outside,
		Lifetime: w.lifetime(), Nonce: w.Nonce, CheckNonce: !w.client.Settings.LenientNonce,
		Filters: slices.Clone(w.existing.Filters),
	}
}

// addFilter adds a filter, or removes those before (RFC 6887 section 13.3).
func addFilter(list []wire.Filter, f wire.Filter) []wire.Filter {
	switch {
	case !f.Prefix.IsValid():
		return nil
	case slices.Contains(list, f):
		return list
	}
	return append(list, f)
}

// unmap deletes a mapping, or all of a protocol (RFC 6887 section 15.1). The answer is the request's
// suggestion, without a lifetime.
func (r *Responder) unmap(ctx context.Context, w *wish) error {
	if w.exists && (w.existing.Static || w.existing.Peer.IsValid()) {
		return wire.NotAuthorized
	}
	if err := r.checkNonce(w); err != nil {
		return err
	}
	return r.mappings.Unmap(ctx, UnmapRequest{
		Inside: netip.AddrPortFrom(w.inside, w.InsidePort), Protocol: w.Protocol,
		Nonce: w.Nonce, CheckNonce: !w.client.Settings.LenientNonce,
	})
}

// peer tells the outside endpoint of a session (RFC 6887 section 12.3): that of a session that
// there is, else of the inside port's mapping, else of a new one. It never shortens a life.
func (r *Responder) peer(ctx context.Context, w *wish, answer *wire.Answer) error {
	if err := r.checkNonce(w); err != nil {
		return err
	}
	flow, found, err := r.mappings.Flow(ctx, FlowRequest{netip.AddrPortFrom(w.inside, w.InsidePort), w.Protocol, w.Remote})
	switch {
	case err != nil:
		return err
	case found && !(w.exists && w.existing.Outside == flow.Outside):
		answer.Outside, answer.Lifetime = flow.Outside, wholeSeconds(flow.Timeout)
		return nil
	case w.exists && (w.existing.Static || w.remaining(&w.existing) >= w.lifetime()):
		w.tell(&w.existing, answer)
		return nil
	}
	request := w.mapRequest()
	if !w.exists || w.existing.Peer.IsValid() {
		request.Peer = w.Remote
	}
	m, err := r.mappings.Map(ctx, request)
	if err == nil {
		w.tell(&m, answer)
	} else if errors.Is(err, ErrNoPort) {
		return wire.CannotProvideExternal
	}
	return err
}
