package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/sessiond/sessiond/internal/netlab"
)

// Subscribers with mappings offer services: a host outside that was never sent to reaches them
// while their mapping is in force, and at no other time (NAT-02).

// A service is a subscriber's port that a mapping leads to.
type service struct {
	sync.Mutex                  // one probe at a time
	udp        *net.UDPConn     // or
	tcp        *net.TCPListener // the other is nil
}

// services are those ever offered, by protocol and inside endpoint. They stay open.
type services map[string]*service

func (all services) close() error {
	var errs []error
	for _, s := range all {
		var c io.Closer = s.udp
		if s.tcp != nil {
			c = s.tcp
		}
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// serviceOf returns the service of a mapping at an inside address.
func (w *world) serviceOf(ctx context.Context, m *mapping, inside netip.Addr) (*service, error) {
	at := netip.AddrPortFrom(inside, m.port)
	key := m.protocol + " " + at.String()
	if s := w.services[key]; s != nil {
		return s, nil
	}
	s := &service{}
	if m.protocol == "udp" {
		socket, err := w.Lab.Subscriber.ListenUDP(at)
		if err != nil {
			return nil, err
		}
		s.udp = socket
	} else {
		listener, err := w.Lab.Subscriber.Listen(ctx, at)
		if err != nil {
			return nil, err
		}
		s.tcp, _ = listener.(*net.TCPListener)
	}
	w.services[key] = s
	return s, nil
}

// A visit is a probe of a mapping: whether its service is reached through it.
type visit struct {
	*service
	m    *mapping
	line *line // whose the service is
}

func (v *visit) String() string { return fmt.Sprintf("%v at %s", v.m, v.line.inside) }

// end is the service as another end of a mapping.
func (v *visit) end() *coneEnd { return &coneEnd{socket: v.udp, seen: v.m.outside} }

// visit returns a probe of a mapping at an inside address.
func (w *world) visit(ctx context.Context, m *mapping, inside netip.Addr) (*visit, error) {
	s, err := w.serviceOf(ctx, m, inside)
	if err != nil {
		return nil, fmt.Errorf("the service of %v at %s: %w", m, inside, err)
	}
	i := slices.IndexFunc(w.model.lines, func(l *line) bool { return l.inside == inside })
	return &visit{s, m, w.model.lines[i]}, nil
}

// eachVisit probes side by side.
func (w *world) eachVisit(visits []*visit, do func(*visit) error) error {
	errs := make([]error, len(visits))
	var all sync.WaitGroup
	for i, v := range visits {
		all.Go(func() {
			v.Lock()
			defer v.Unlock()
			if err := do(v); err != nil {
				errs[i] = fmt.Errorf("%v: %w (NAT-02)", v, err)
			}
		})
	}
	all.Wait()
	w.report.visits.Add(int64(len(visits)))
	return errors.Join(errs...)
}

// isReached checks that anybody reaches a service by UDP.
func (w *world) isReached(v *visit) error {
	if !w.reaches(v.end(), passesSoon) {
		return errors.New("nobody reaches it")
	}
	return nil
}

// keeps reports whether a mapping stays where it was in this round: nobody changed it, or another
// one of its inside port, and no operation touches its owner. Where one session of a user waits
// for a block, the user's mappings may go there; where one loses its own with a pool, from there.
func (w *world) keeps(m *mapping, touched map[*line]bool) bool {
	if m.fresh || m.gone {
		return false
	}
	for _, l := range w.model.linesOf(m.group) {
		before := w.holders[l]
		_, bound := w.blocks[l]
		if touched[l] || l.online != before || l.online != nil && !bound {
			if l.inside == m.inside || l.owner() == m.user || l.online.is(m.user) || before.is(m.user) {
				return false
			}
		}
	}
	beside := func(x *mapping) bool { return x.group == m.group && x.sameInside(m) }
	return !slices.ContainsFunc(w.ended, beside) && !slices.ContainsFunc(w.mappings, func(x *mapping) bool { return x.fresh && beside(x) })
}

// closeYielding closes the flows through mappings of users of whom a session has ended in this round
// that waited for a block when the round began: it may have got one before, and for that time the
// mapping, with the end of the flows through it.
func (w *world) closeYielding() error {
	return w.closeFlows(func(f *flow) bool {
		for l, s := range w.waited {
			if l.online != s && f.mapped != nil && f.mapped.group == l.group && s.is(f.mapped.user) {
				return true
			}
		}
		return false
	})
}

// steady returns the visits of the last rest to services that this round leaves alone.
func (w *world) steady(touched map[*line]bool) []*visit {
	return slices.DeleteFunc(slices.Clone(w.visited), func(v *visit) bool { return !w.keeps(v.m, touched) })
}

// settleMappings checks the mappings at rest, but those of TCP that are in force: their flows
// show that. What the subscriber sends from its mapped port leaves by the public one.
func (w *world) settleMappings(ctx context.Context, c *comparison) error {
	var open, closed []*visit
	var errs []error
	for _, m := range w.mappings {
		b := c.holder(m)
		inside := m.home()
		if b != nil {
			inside = b.Inside
		}
		v, err := w.visit(ctx, m, inside)
		switch {
		case c.mayMove(m):
		case err != nil:
			errs = append(errs, err)
		case b == nil || !b.is("ACTIVE"):
			closed = append(closed, v)
		case m.protocol == "udp":
			open = append(open, v)
		}
	}
	for _, m := range w.ended {
		if slices.ContainsFunc(w.mappings, m.sameOutside) {
			continue // it is another one's
		}
		v, err := w.visit(ctx, m, m.home())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		closed = append(closed, v)
	}
	errs = append(errs, w.eachVisit(open, func(v *visit) error { return w.serves(ctx, v) }), w.eachVisit(closed, func(v *visit) error { return w.isClosed(ctx, v) }))
	for _, m := range w.mappings {
		m.fresh = false
	}
	w.visited, w.ended = open, nil
	return errors.Join(errs...)
}

// mayMove reports whether a session of the owner waits for a block: with that it gets the mapping,
// at any time.
func (c *comparison) mayMove(m *mapping) bool {
	return slices.ContainsFunc(c.model.linesOf(m.group), func(l *line) bool {
		return l.online != nil && (l.inside == m.inside || l.online.user == m.user) && c.atRest[l.inside] == nil
	})
}

// home is the inside address of the owner while no other has its user's session.
func (m *mapping) home() netip.Addr {
	if m.inside.IsValid() {
		return m.inside
	}
	return netip.MustParseAddr(strings.TrimPrefix(m.user, ownerPrefix))
}

// serves checks that a service is reached, and seen at its mapping.
func (w *world) serves(ctx context.Context, v *visit) error {
	if err := w.isReached(v); err != nil || v.m.group.limits != (limits{}) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, passesSoon)
	defer cancel()
	seen, err := w.ask(ctx, v.end())
	if err == nil && seen != v.m.outside {
		err = fmt.Errorf("it is seen as %v", seen)
	}
	return err
}

// isClosed checks that nobody reaches a service through a mapping that is not in force.
func (w *world) isClosed(ctx context.Context, v *visit) error {
	if v.udp != nil {
		if w.reaches(v.end(), staysSilent) {
			return errors.New("somebody reaches it")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, staysSilent)
	defer cancel()
	conn, err := w.Lab.Internet.Dial(ctx, "tcp4", netip.AddrPortFrom(stranger, 0), v.m.outside)
	if err == nil {
		return errors.Join(errors.New("somebody reaches it"), conn.Close())
	}
	return nil
}

// openMappedFlows opens a connection through each mapping of TCP in force that has none. It is a
// flow of the subscriber as any other.
func (w *world) openMappedFlows(ctx context.Context, c *comparison) error {
	for _, m := range w.mappings {
		b := c.holder(m)
		if m.protocol != "tcp" || b == nil || !b.is("ACTIVE") || c.mayMove(m) || slices.ContainsFunc(w.flows, func(f *flow) bool { return f.mapped == m }) {
			continue
		}
		v, err := w.visit(ctx, m, b.Inside)
		if err != nil {
			return err
		}
		tcp, err := w.connect(ctx, v)
		if err != nil {
			return fmt.Errorf("%v: nobody reaches it: %w (NAT-02)", v, err)
		}
		w.flows = append(w.flows, &flow{line: v.line, session: v.line.online, block: *b, mapped: m, tcp: tcp})
		w.report.visits.Add(1)
	}
	return nil
}

// connect connects from outside to a service.
func (w *world) connect(ctx context.Context, v *visit) (*netlab.Flow, error) {
	ctx, cancel := context.WithTimeout(ctx, passesSoon)
	defer cancel()
	deadline, _ := ctx.Deadline()
	outside, err := w.Lab.Internet.Dial(ctx, "tcp4", netip.AddrPortFrom(stranger, 0), v.m.outside)
	if err != nil {
		return nil, err
	}
	_ = v.tcp.SetDeadline(deadline)
	inside, err := v.tcp.Accept()
	if err == nil && inside.RemoteAddr().String() != outside.LocalAddr().String() {
		err = errors.Join(fmt.Errorf("%v is seen as %v", outside.LocalAddr(), inside.RemoteAddr()), inside.Close())
	}
	if err != nil {
		return nil, errors.Join(err, outside.Close())
	}
	return &netlab.Flow{Inside: netlab.NewEnd(inside), Outside: netlab.NewEnd(outside)}, nil
}
