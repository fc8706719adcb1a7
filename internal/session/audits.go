package session

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// Audits answers queries about the audit trails, and remembers callers' requests. It
// implements the interfaces of package control.
type Audits struct {
	trails *trail.Store
	log    *slog.Logger
}

// Audits returns the audit trails of the Manager's database.
func (m *Manager) Audits() *Audits { return &Audits{m.backend.store.Audit(), m.backend.shared.log} }

// ListAudit returns up to limit entries that match, newest first, after a place: of the trails that
// can be read. It fails if none can.
func (a *Audits) ListAudit(ctx context.Context, f audit.Filter, after audit.Place, limit int) (audit.Page, error) {
	page, err := a.trails.List(ctx, f, after, limit)
	if err != nil {
		return audit.Page{}, unavailable(err)
	}
	return page, nil
}

// verifyAtOnce is the number of trails that are checked at once: one whose server is away must
// not use up the time of the others.
const verifyAtOnce = 8

// VerifyAudit checks one trail, or with an empty name all. Of all it checks those that can be
// read, and returns why the others cannot; it fails if none can.
func (a *Audits) VerifyAudit(ctx context.Context, name string) ([]audit.Verified, error) {
	if name != "" {
		v, err := a.verifyOne(ctx, name)
		return []audit.Verified{v}, err
	}
	short, cancel := clock.Share(ctx, 4)
	names, unnamed := a.trails.Trails(short)
	cancel()
	short, cancel = clock.Share(ctx, 2)
	defer cancel()
	all, errs := make([]audit.Verified, len(names)), make([]error, len(names))
	var workers errgroup.Group
	workers.SetLimit(verifyAtOnce)
	for i, trail := range names {
		workers.Go(func() error {
			if all[i], errs[i] = a.trails.Verify(short, trail); errs[i] != nil {
				all[i] = audit.Verified{Trail: trail, Unread: errs[i].Error()}
			}
			return nil
		})
	}
	_ = workers.Wait() // each has its own error
	if !slices.Contains(errs, nil) {
		return nil, unavailable(errs[0])
	}
	if unnamed != nil {
		all = append(all, audit.Verified{Unread: unnamed.Error()})
	}
	return all, nil
}

// verifyOne checks one trail.
func (a *Audits) verifyOne(ctx context.Context, trail string) (audit.Verified, error) {
	names, err := a.trails.Trails(ctx)
	switch {
	case slices.Contains(names, trail):
	case err != nil:
		return audit.Verified{}, unavailable(err)
	default:
		return audit.Verified{}, fmt.Errorf("trail %q: %w", trail, inspect.ErrNotFound)
	}
	v, err := a.trails.Verify(ctx, trail)
	if err != nil {
		return v, unavailable(err)
	}
	return v, nil
}

// BeginRequest remembers a request, and returns the knowledge from before.
func (a *Audits) BeginRequest(ctx context.Context, r audit.Request) (audit.Remembered, error) {
	known, err := a.trails.BeginRequest(ctx, r)
	if err != nil {
		return known, unavailable(err)
	}
	return known, nil
}

// EndRequest stores the outcome of a request.
func (a *Audits) EndRequest(ctx context.Context, r audit.Request, answer []byte) error {
	return a.trails.EndRequest(ctx, r, answer)
}

// ForgetRequest forgets a request that changed nothing.
func (a *Audits) ForgetRequest(ctx context.Context, r audit.Request) error {
	return a.trails.ForgetRequest(ctx, r)
}

// Ordered carries out the order of the context, to something that is not in Redis, between its two
// audit entries. carryOut returns the number of subjects, which it is with the error too.
func (a *Audits) Ordered(ctx context.Context, entry func(*audit.Entry), carryOut func() (int, error)) (int, error) {
	end, err := a.trails.Begin(ctx, entry)
	if err != nil {
		return 0, unavailable(err)
	}
	n, failed := carryOut()
	if err := end(n, failed); err != nil {
		a.log.Error("the outcome of an order is not in the audit trail", "changed", n, "error", err,
			"alarm", "sessiond_audit_write_failures_total")
	}
	return n, failed
}

// ordered carries out an order to the kernel between its two audit entries.
func (v *Backend) ordered(ctx context.Context, entry func(*audit.Entry), carryOut func() (int, error)) (int, error) {
	return (&Audits{v.store.Audit(), v.shared.log}).Ordered(ctx, entry, carryOut)
}

// earlier returns the subscribers that an earlier attempt with the order's request_id has
// changed: the answer to the second attempt is that of both.
func (v *Backend) earlier(ctx context.Context) ([]subscriber.Key, error) {
	entries, err := v.store.EarlierEntries(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	var keys []subscriber.Key
	for _, e := range entries {
		for _, text := range e.Keys {
			if key, ok := subscriberKey(e.Group, text); ok {
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

// Previews answers what calls would do, for callers who only validate. It implements the
// interface of package control. All methods may be called concurrently.
type Previews struct{ of *Backend }

// Previews returns the Backend's Previews.
func (v *Backend) Previews() *Previews { return &Previews{v} }

// PreviewPut returns how many subscribers would lose the address of a record, and their
// conntrack entries.
func (p *Previews) PreviewPut(_ context.Context, r subscriber.Record) (subscribers, sessions int, err error) {
	v := p.of
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return 0, 0, err
	}
	if _, err := v.keyGroupLocked(r.Key); err != nil {
		return 0, 0, err
	}
	s := v.shared.life.Slot(r.Inside)
	if s == nil || !s.Online() {
		return 0, 0, nil
	}
	holder := s.Packed().Record()
	if len(subscriber.DecidePut(&holder, r).Delete) == 0 {
		return 0, 0, nil
	}
	return 1, v.kernel.SessionCount(r.Inside), nil
}

// PreviewDelete returns up to most of the subscribers that Delete would end, the number of all,
// and of their conntrack entries.
func (p *Previews) PreviewDelete(_ context.Context, f inspect.SubscriberFilter, most int) (records []subscriber.Record, all, sessions int, err error) {
	v := p.of
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, 0, 0, err
	}
	for _, s := range v.onlineRLocked(&f, subscriber.Key{}) {
		if v.matchRLocked(&f, s) {
			if all++; all <= most {
				records = append(records, s.Packed().Record())
			}
			sessions += v.kernel.SessionCount(s.Inside())
		}
	}
	return records, all, sessions, nil
}

// PreviewRemovals returns the number of suspended removals that a decision would be about, that of
// the conntrack entries of their subscribers, and the etag of the removals.
func (p *Previews) PreviewRemovals(_ context.Context, f inspect.RemovalFilter) (removals, sessions int, etag string, err error) {
	keys, err := p.of.heldKeys(f)
	for _, key := range keys {
		sessions += p.of.kernel.SessionCount(key.Inside)
	}
	return len(keys), sessions, inspect.RemovalsEtag(keys), err
}

// PreviewSettings returns the settings after a change, and how many bindings it would cut,
// with their conntrack entries.
func (p *Previews) PreviewSettings(_ context.Context, s inspect.Settings, names []string) (after inspect.Settings, bindings, sessions int, err error) {
	v := p.of
	before := v.settings.current()
	after = before
	if err := after.Merge(s, names); err != nil {
		return after, 0, 0, err
	}
	if before.Removal == after.Removal || after.Removal != inspect.RemovalOn {
		return after, 0, 0, nil
	}
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	now := v.shared.now()
	for inside := range v.shared.life.Drains().Addresses() {
		if s := v.shared.life.Slot(inside); s.Phase() == lifecycle.Draining && !s.InGrace(now) {
			bindings++
			sessions += v.kernel.SessionCount(inside)
		}
	}
	return after, bindings, sessions, nil
}
