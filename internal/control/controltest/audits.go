package controltest

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Audits implements control.Audits in memory.
type Audits struct {
	Err      error            // if set, every method that asks returns it
	Entries  []audit.Entry    // newest first
	Checks   []audit.Verified // of all trails
	Unread   []audit.Unread
	Requests map[audit.Request][]byte
	Begun    []*audit.Order // by Ordered

	mu sync.Mutex
}

// ListAudit implements control.Audits. Places are numbers of entries.
func (a *Audits) ListAudit(_ context.Context, f audit.Filter, after audit.Place, limit int) (audit.Page, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.Err != nil {
		return audit.Page{}, a.Err
	}
	page := audit.Page{Unread: a.Unread}
	past := after == (audit.Place{})
	for i := range a.Entries {
		e := &a.Entries[i]
		switch {
		case !past:
			past = after.ID == e.At.Format("150405") && after.Trail == e.Trail
		case !f.Match(e):
		case len(page.Entries) == limit:
			last := &page.Entries[limit-1]
			page.Next = audit.Place{ID: last.At.Format("150405"), Trail: last.Trail}
			return page, nil
		default:
			page.Entries = append(page.Entries, *e)
		}
	}
	return page, nil
}

// VerifyAudit implements control.Audits.
func (a *Audits) VerifyAudit(_ context.Context, trail string) ([]audit.Verified, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.Err != nil {
		return nil, a.Err
	}
	found := slices.DeleteFunc(slices.Clone(a.Checks), func(v audit.Verified) bool { return trail != "" && v.Trail != trail })
	if trail != "" && len(found) == 0 {
		return nil, inspect.ErrNotFound
	}
	return found, nil
}

// Ordered implements control.Audits, without entries.
func (a *Audits) Ordered(ctx context.Context, _ func(*audit.Entry), carryOut func() (int, error)) (int, error) {
	a.mu.Lock()
	a.Begun = append(a.Begun, audit.From(ctx))
	err := a.Err
	a.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return carryOut()
}

// BeginRequest implements control.Audits.
func (a *Audits) BeginRequest(_ context.Context, r audit.Request) (audit.Remembered, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.Err != nil {
		return audit.Remembered{}, a.Err
	}
	if answer, ok := a.Requests[r]; ok {
		return audit.Remembered{Again: answer == nil, Answer: answer, Began: Now}, nil
	}
	for known := range a.Requests {
		if known.Actor == r.Actor && known.ID == r.ID {
			return audit.Remembered{Other: true}, nil
		}
	}
	if a.Requests == nil {
		a.Requests = map[audit.Request][]byte{}
	}
	a.Requests[r] = nil
	return audit.Remembered{Began: Now}, nil
}

// EndRequest implements control.Audits.
func (a *Audits) EndRequest(_ context.Context, r audit.Request, answer []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.Began = time.Time{}
	a.Requests[r] = answer
	return nil
}

// ForgetRequest implements control.Audits.
func (a *Audits) ForgetRequest(_ context.Context, r audit.Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.Began = time.Time{}
	delete(a.Requests, r)
	return nil
}

// Previews implements control.Previews with the slices of a Backend. A subscriber has two
// conntrack entries.
type Previews struct{ Of *Backend }

// PreviewPut implements control.Previews.
func (p Previews) PreviewPut(ctx context.Context, r subscriber.Record) (subscribers, sessions int, err error) {
	if !p.Of.Inside.Contains(r.Inside) {
		return 0, 0, inspect.ErrNoGroup
	}
	present, err := p.Of.Subscriber(ctx, r.Key)
	if err != nil || present.UserName == r.UserName {
		return 0, 0, p.Of.Err
	}
	return 1, 2, nil
}

// PreviewDelete implements control.Previews.
func (p Previews) PreviewDelete(_ context.Context, f inspect.SubscriberFilter, most int) (records []subscriber.Record, all, sessions int, err error) {
	p.Of.mu.Lock()
	defer p.Of.mu.Unlock()
	for i := range p.Of.Online {
		if s := &p.Of.Online[i]; p.Of.matchLocked(&f, s) {
			if all++; all <= most {
				records = append(records, s.Record)
			}
		}
	}
	return records, all, 2 * all, p.Of.Err
}

// PreviewRemovals implements control.Previews.
func (p Previews) PreviewRemovals(_ context.Context, f inspect.RemovalFilter) (removals, sessions int, etag string, err error) {
	p.Of.mu.Lock()
	defer p.Of.mu.Unlock()
	removals, etag = p.Of.heldLocked(f)
	return removals, 2 * removals, etag, p.Of.Err
}

// PreviewSettings implements control.Previews.
func (p Previews) PreviewSettings(_ context.Context, s inspect.Settings, names []string) (after inspect.Settings, bindings, sessions int, err error) {
	p.Of.mu.Lock()
	defer p.Of.mu.Unlock()
	after = p.Of.Live
	if err := after.Merge(s, names); err != nil || p.Of.Err != nil {
		return after, 0, 0, p.Of.Err
	}
	if after.Removal == inspect.RemovalOn && p.Of.Live.Removal != inspect.RemovalOn {
		return after, 3, 6, nil
	}
	return after, 0, 0, nil
}

// PreviewAddPool implements control.Previews.
func (p Previews) PreviewAddPool(context.Context, string, netip.Prefix) ([]inspect.Pool, error) {
	return nil, p.Of.Err
}

// PreviewDrainPool implements control.Previews.
func (p Previews) PreviewDrainPool(_ context.Context, _ string, outside netip.Prefix) ([]inspect.Pool, error) {
	pools, _, _, err := p.PreviewRemovePool(context.Background(), "", outside, true)
	return pools, err
}

// PreviewRemovePool implements control.Previews.
func (p Previews) PreviewRemovePool(_ context.Context, _ string, outside netip.Prefix, cut bool) (pools []inspect.Pool, bindings, sessions int, err error) {
	p.Of.mu.Lock()
	defer p.Of.mu.Unlock()
	for _, pool := range p.Of.Blocks {
		if pool.Outside != outside {
			continue
		}
		if pool.Used > 0 && !cut {
			return nil, 0, 0, &inspect.LiveBindingsError{Outside: outside, Bindings: pool.Used}
		}
		return []inspect.Pool{pool}, pool.Used, 2 * pool.Used, p.Of.Err
	}
	if p.Of.Err != nil {
		return nil, 0, 0, p.Of.Err
	}
	return nil, 0, 0, inspect.ErrNotFound
}

// PreviewMapping implements control.Previews.
func (p Previews) PreviewMapping(_ context.Context, m nat.Mapping, _ time.Duration) (inspect.Mapping, error) {
	if !m.Outside.IsValid() {
		m.Outside.AddrPort = netip.MustParseAddrPort("198.51.100.1:60100")
	}
	return inspect.Mapping{Mapping: m}, p.Of.Err
}

// PreviewMappingEnd implements control.Previews.
func (p Previews) PreviewMappingEnd(_ context.Context, _ string, outside nat.Endpoint) (view inspect.Mapping, sessions int, err error) {
	p.Of.mu.Lock()
	defer p.Of.mu.Unlock()
	for _, m := range p.Of.Mapped {
		if m.Outside == outside && !m.Ended() {
			return m, 2, p.Of.Err
		}
	}
	if p.Of.Err != nil {
		return view, 0, p.Of.Err
	}
	return view, 0, inspect.ErrNotFound
}
