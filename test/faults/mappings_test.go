package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Each outside address has some ports for mappings (NAT-02). The configuration has the first one.
const (
	firstStatic = 50_000
	lastStatic  = 50_007
	mappedPort  = 5_000 // of the subscriber, of the configured mappings; the others have the next ones
	mostMade    = 12    // mappings at a time that are not configured
)

// A mapping is a public port of a subscriber: of a user, or of whoever has an inside address.
type mapping struct {
	group      *groupSpec
	user       string
	inside     netip.Addr
	protocol   string // tcp or udp
	port       uint16 // of the subscriber
	outside    netip.AddrPort
	configured bool
	fresh      bool // made in this round; where sessiond chooses outside, that is not known before its end
	gone       bool // it has ended
}

func (m *mapping) String() string {
	if m == nil {
		return "none"
	}
	return fmt.Sprintf("%s %v of %s port %d", m.protocol, m.outside, m.owner(), m.port)
}

func (m *mapping) owner() string {
	if m.inside.IsValid() {
		return m.inside.String()
	}
	return m.user
}

// sameOwner reports whether two mappings are of one owner.
func (m *mapping) sameOwner(o *mapping) bool {
	return m.group == o.group && m.user == o.user && m.inside == o.inside
}

// sameInside reports whether two mappings have one port of a subscriber, if both are on one address.
func (m *mapping) sameInside(o *mapping) bool { return m.protocol == o.protocol && m.port == o.port }

func (m *mapping) sameOutside(o *mapping) bool {
	return m.protocol == o.protocol && m.outside == o.outside
}

// configured are the mappings that the configuration has of a group: one of the first inside
// address, and one of the user of the second.
func (g *groupSpec) configured() []*mapping {
	outside := netip.AddrPortFrom(g.outside.Addr(), firstStatic)
	return []*mapping{
		{group: g, inside: g.first, protocol: "udp", port: mappedPort, outside: outside, configured: true},
		{group: g, user: (&line{inside: g.first.Next()}).owner(), protocol: "tcp", port: mappedPort, outside: outside, configured: true},
	}
}

// static is the part of the group's configuration about mappings.
func (g *groupSpec) static() string {
	var list []string
	for _, m := range g.configured() {
		owner := "user: " + m.user
		if m.inside.IsValid() {
			owner = "inside: " + m.inside.String()
		}
		list = append(list, fmt.Sprintf("{%s, protocol: %s, inside_port: %d, outside: %q}", owner, m.protocol, m.port, m.outside))
	}
	return fmt.Sprintf("static_ports: %d-%d, static_mappings: [%s]", firstStatic, lastStatic, strings.Join(list, ", "))
}

// A mappingChange deletes a mapping, makes one, or both: then the port gets another owner, or
// another port of its owner.
type mappingChange struct{ old, made *mapping }

// planMappings draws changes of mappings; chooseMappings says which, when the round begins.
func (w *world) planMappings() (ops []op) {
	for range w.rng.IntN(4) {
		ops = append(ops, op{kind: opMapping, drawn: w.rng.IntN(1 << 30)})
	}
	return ops
}

// chooseMappings decides on the changes, and applies them to the model. Beside a change of its
// pools a group keeps its mappings: what a pool that is cut takes along would depend on which
// was first.
func (w *world) chooseMappings(ops []op) {
	pool := slices.ContainsFunc(ops, func(o op) bool { return o.kind == opPool })
	left := w.madeMappings()
	for i := range ops {
		if ops[i].kind != opMapping {
			continue
		}
		rng := rand.New(rand.NewPCG(uint64(ops[i].drawn), 0))
		var change mappingChange
		switch drawn := rng.IntN(5); {
		case len(left) > 0 && (drawn < 2 || len(left) >= mostMade):
			at := rng.IntN(len(left))
			if pool && left[at].group == defaultGroup {
				continue
			}
			change.old = left[at]
			left = slices.Delete(left, at, at+1)
			if drawn == 0 {
				change.made = w.anotherOf(rng, change.old)
			}
		default:
			change.made = w.newMapping(rng, pool)
		}
		if change.old != nil {
			w.drop(change.old)
		}
		if change.made != nil {
			w.mappings = append(w.mappings, change.made)
		}
		ops[i].mapping = change
		w.note("mapping: %v goes, %v comes", change.old, change.made)
	}
}

// madeMappings returns the mappings that the configuration does not have.
func (w *world) madeMappings() []*mapping {
	return slices.DeleteFunc(slices.Clone(w.mappings), func(m *mapping) bool { return m.configured })
}

// drop takes a mapping from the model.
func (w *world) drop(m *mapping) {
	w.mappings = slices.DeleteFunc(w.mappings, func(x *mapping) bool { return x == m })
	w.ended = append(w.ended, m)
	m.gone = true
}

// newMapping returns a mapping to make, nil for none: at a port of the harness's choice, or of
// sessiond's.
func (w *world) newMapping(rng *rand.Rand, poolChanges bool) *mapping {
	l := w.model.lines[rng.IntN(len(w.model.lines))]
	m := &mapping{group: l.group, protocol: []string{"tcp", "udp"}[rng.IntN(2)], port: mappedPort + 1 + uint16(rng.IntN(3)), fresh: true}
	if rng.IntN(2) == 0 {
		m.inside = l.inside
	} else {
		m.user = l.owner()
	}
	if poolChanges && l.group == defaultGroup || slices.ContainsFunc(w.mappings, func(x *mapping) bool { return x.sameOwner(m) && x.sameInside(m) }) {
		return nil
	}
	if rng.IntN(2) == 0 {
		if slices.ContainsFunc(w.mappings, func(x *mapping) bool { return x.group == m.group && x.fresh }) {
			return nil // sessiond might choose the port of that one
		}
		return m
	}
	addresses := []netip.Addr{l.group.outside.Addr(), l.group.outside.Addr()}
	if l.group.outside.Bits() < 32 {
		addresses[1] = addresses[0].Next()
	}
	if l.group == defaultGroup && w.second.state == poolGiving {
		addresses = append(addresses, secondPool.Addr())
	}
	m.outside = netip.AddrPortFrom(addresses[rng.IntN(len(addresses))], uint16(firstStatic+1+rng.IntN(lastStatic-firstStatic)))
	if slices.ContainsFunc(w.mappings, m.sameOutside) || w.mayChoose(m.group) {
		return nil
	}
	return m
}

// mayChoose reports whether sessiond chooses a port of the group in this round.
func (w *world) mayChoose(g *groupSpec) bool {
	return slices.ContainsFunc(w.mappings, func(m *mapping) bool { return m.group == g && !m.outside.IsValid() })
}

// anotherOf returns a mapping for the outside port of one that ends: to another port of its
// owner, which may have it at once, or to another subscriber.
func (w *world) anotherOf(rng *rand.Rand, old *mapping) *mapping {
	m := *old
	m.fresh, m.configured, m.gone = true, false, false
	if w.mayChoose(m.group) || secondPool.Contains(m.outside.Addr()) && w.second.state != poolGiving {
		return nil
	}
	if rng.IntN(2) == 0 {
		m.port = mappedPort + 1 + (old.port-mappedPort)%3
	} else {
		lines := w.model.linesOf(old.group)
		m.user, m.inside = "", lines[rng.IntN(len(lines))].inside
	}
	if slices.ContainsFunc(w.mappings, func(x *mapping) bool { return x != old && x.sameOwner(&m) && x.sameInside(&m) }) {
		return nil
	}
	return &m
}

// changeMapping carries the change out. A change that was not answered may have been done.
func (b *burst) changeMapping(ctx context.Context, o op) error {
	var held mappingRow
	if old := o.mapping.old; old != nil {
		err := b.insist(ctx, func(ctx context.Context) (err error) {
			held, err = b.w.deleteMapping(ctx, old)
			return err
		})
		if err != nil {
			return fmt.Errorf("delete %v: %w", old, err)
		}
	}
	m := o.mapping.made
	if m == nil {
		return nil
	}
	var made mappingRow
	err := b.insist(ctx, func(ctx context.Context) (err error) {
		made, err = b.w.createMapping(ctx, m)
		return err
	})
	if err != nil {
		return fmt.Errorf("make %v: %w", m, err)
	}
	if old := o.mapping.old; old != nil && !m.sameOwner(old) && made.Created.Before(held.Held) {
		return fmt.Errorf("%v was made at %v, before %v, the end of the quarantine (NAT-30)", m, made.Created, held.Held)
	}
	if outside := made.outside(); !m.outside.IsValid() {
		m.outside = outside
	} else if outside != m.outside {
		return fmt.Errorf("%v has %v", m, outside)
	}
	return nil
}

// deleteMapping deletes a mapping. A repetition may find none: only the first answer was lost.
func (w *world) deleteMapping(ctx context.Context, m *mapping) (mappingRow, error) {
	out, err := w.Daemon.Ctl(ctx, "-o", "json", "mapping", "delete", m.outside.String(), "--protocol", m.protocol, "--yes")
	if err != nil && strings.Contains(err.Error(), "not found") {
		return mappingRow{}, nil
	}
	var answer struct{ Mapping mappingRow }
	if err == nil {
		err = json.Unmarshal([]byte(out), &answer)
	}
	return answer.Mapping, err
}

// createMapping makes a mapping, or finds that an earlier try has made it.
func (w *world) createMapping(ctx context.Context, m *mapping) (mappingRow, error) {
	args := []string{"-o", "json", "mapping", "create", fmt.Sprintf(":%d", m.port), "--owner", m.user}
	if m.inside.IsValid() {
		args = []string{"-o", "json", "mapping", "create", netip.AddrPortFrom(m.inside, m.port).String()}
	}
	if m.outside.IsValid() {
		args = append(args, m.outside.String())
	}
	out, err := w.Daemon.Ctl(ctx, append(args, "--protocol", m.protocol, "--group", m.group.name)...)
	if err != nil && strings.Contains(err.Error(), "exists") && !strings.Contains(err.Error(), "quarantine") {
		all, lerr := w.listMappings(ctx)
		i := slices.IndexFunc(all, func(r mappingRow) bool { return r.Held.IsZero() && r.is(m) })
		if lerr == nil && i >= 0 {
			return all[i], nil
		}
	}
	if err != nil {
		return mappingRow{}, err
	}
	var made mappingRow
	return made, json.Unmarshal([]byte(out), &made)
}

// A mappingRow is a line of `sessionctl -o json mapping list`.
type mappingRow struct {
	Group      string    `json:"group"`
	Protocol   string    `json:"protocol"`
	User       string    `json:"user_name"`
	Inside     string    `json:"inside_address"`
	Port       uint16    `json:"inside_port"`
	Outside    string    `json:"outside_address"`
	Public     uint16    `json:"outside_port"`
	Created    time.Time `json:"created_at"`
	Held       time.Time `json:"hold_until"`
	Configured bool      `json:"configured"`
	At         string    `json:"present_address"`
	InForce    bool      `json:"in_force"`
}

func (r *mappingRow) outside() netip.AddrPort {
	a, _ := netip.ParseAddr(r.Outside)
	return netip.AddrPortFrom(a, r.Public)
}

// is reports whether the row is of the mapping, wherever its outside endpoint is.
func (r *mappingRow) is(m *mapping) bool {
	return r.Group == m.group.name && r.Protocol == "PROTOCOL_"+strings.ToUpper(m.protocol) && r.Port == m.port && r.owner() == m.owner()
}

func (r *mappingRow) owner() string { return r.User + r.Inside }

func (w *world) listMappings(ctx context.Context) ([]mappingRow, error) {
	out, err := w.Daemon.Ctl(ctx, "-o", "json", "mapping", "list")
	if err != nil {
		return nil, err
	}
	return decodeLines[mappingRow](out)
}

// mappingsLost is called when sessiond starts with an empty database: it knows the mappings of
// the configuration alone.
func (w *world) mappingsLost() {
	for _, m := range w.madeMappings() {
		w.drop(m)
	}
}

// mapped: sessiond lists the mappings of the model, Redis has those that are not configured, and
// the kernel has the elements of those whose owner is online (NAT-02).
func (c *comparison) mapped() {
	stored := map[string]bool{}
	want := map[string][]string{}
	found := map[*mapping]bool{}
	for i := range c.s.mappings {
		r := &c.s.mappings[i]
		if !r.Held.IsZero() {
			continue
		}
		at := slices.IndexFunc(c.mappings, func(m *mapping) bool { return r.is(m) && r.outside() == m.outside && r.Configured == m.configured })
		if at < 0 {
			c.differ("mapping %+v, want none", *r)
			continue
		}
		m := c.mappings[at]
		found[m] = true
		b := c.holder(m)
		if b != nil && b.is("ACTIVE") != r.InForce || b == nil && r.InForce || r.InForce && r.At != b.Inside.String() {
			c.differ("%v is at %s, in force: %t; want at %v", m, r.At, r.InForce, b)
		}
		if b != nil && b.is("ACTIVE") {
			in, out := fmt.Sprint(b.Inside, " ", m.port), fmt.Sprint(m.outside.Addr(), " ", m.outside.Port())
			want["static_in"] = append(want["static_in"], m.protocol+" "+out+" "+in)
			want["static_out"] = append(want["static_out"], m.protocol+" "+in+" "+out)
		}
	}
	for _, m := range c.mappings {
		if !found[m] {
			c.differ("%v is not listed", m)
		}
		if !m.configured {
			stored[m.protocol+"/"+m.outside.String()] = true
		}
	}
	for field, held := range c.s.storedMappings {
		if !stored[field] && !held {
			c.differ("stored mapping %s, want none", field)
		}
		if stored[field] && !held {
			delete(stored, field)
		}
	}
	for field := range stored {
		c.differ("mapping %s is not stored", field)
	}
	for set, elements := range want {
		slices.Sort(elements)
		want[set] = elements
	}
	for _, set := range []string{"static_in", "static_out"} {
		if have := slices.Sorted(slices.Values(c.s.named[set])); !slices.Equal(have, want[set]) {
			c.differ("%s has %q, want %q", set, have, want[set])
		}
	}
}

// holder returns the binding that has a mapping, nil for none. Of several of its user that is the
// one online whose session got its first block last, though its present one may be older than
// another's; or else one that drains, whose sessions may go on. Where the
// address has a mapping of its own for the inside port, that one counts.
func (c *comparison) holder(m *mapping) (holder *binding) {
	if m.gone {
		return nil
	}
	if m.inside.IsValid() {
		return c.atRest[m.inside]
	}
	var since time.Time
	for inside, b := range c.atRest {
		if b.Group != m.group.name || b.User != m.user {
			continue
		}
		served := c.s.stored[fmt.Sprintf("%s:%d", b.Outside, b.Blocks[0].First)].since()
		better := holder == nil || b.is("ACTIVE") && !holder.is("ACTIVE") || b.is("ACTIVE") == holder.is("ACTIVE") && served.After(since)
		if served.Equal(since) && holder != nil { // both were found in the kernel at one start, or began together
			better = c.listedAt(m) == inside.String()
		}
		if better {
			holder, since = b, served
		}
	}
	if holder != nil && slices.ContainsFunc(c.mappings, func(x *mapping) bool { return x.inside == holder.Inside && x.sameInside(m) }) {
		return nil
	}
	return holder
}

// listedAt returns the address that sessiond says has the mapping.
func (c *comparison) listedAt(m *mapping) string {
	for i := range c.s.mappings {
		if r := &c.s.mappings[i]; r.Held.IsZero() && r.is(m) {
			return r.At
		}
	}
	return ""
}

// endMappings deletes all mappings at the end of the world: nothing is left of them.
func (w *world) endMappings(ctx context.Context) error {
	var errs []error
	for _, m := range w.madeMappings() {
		if _, err := w.deleteMapping(ctx, m); err != nil {
			errs = append(errs, fmt.Errorf("delete %v: %w", m, err))
		}
		w.drop(m)
	}
	return errors.Join(append(errs, w.Until(ctx, "the quarantine of mappings to end", func() (bool, error) {
		all, err := w.lookStoredMappings(ctx)
		return len(all) == 0, err
	}))...)
}

// lookStoredMappings reads the mappings in Redis, and whether they are in quarantine.
func (w *world) lookStoredMappings(ctx context.Context) (map[string]bool, error) {
	stored := map[string]bool{}
	for _, g := range groups {
		fields, err := w.db.HGetAll(ctx, g.keys()+"mappings").Result()
		if err != nil {
			return nil, err
		}
		for field, text := range fields {
			var row struct {
				Held time.Time `json:"hold_until"`
			}
			if err := json.Unmarshal([]byte(text), &row); err != nil {
				return nil, fmt.Errorf("stored mapping %s: %w", text, err)
			}
			stored[field] = !row.Held.IsZero()
		}
	}
	return stored, nil
}
