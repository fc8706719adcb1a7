package nftnat

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables/userdata"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// maxPolicies bounds the timeout objects. Old ones are kept because flows that began under
// them still use them; without them those flows would get the kernel's defaults.
const maxPolicies = 48

// leastOldPolicies of them are kept also beside many present ones.
const leastOldPolicies = 24

// policyAccept is NF_ACCEPT, the policy of base chains: packets of others than subscribers
// pass.
const policyAccept = 1

// plan adds to b the operations that turn the present table s into r; none if they are
// equal. The elements of gate and block are kept, unless the table is missing, or has to be
// made again because a map in it has the wrong shape: then fresh reports that the maps will
// be empty.
func (r *ruleset) plan(s *actualRuleset, b *wire.Batch) (fresh bool, err error) {
	switch {
	case !s.exists:
		return true, r.create(b)
	case !r.fits(s):
		return true, r.anew(b)
	}
	if s.dormant {
		r.addTable(b)
	}
	r.planSets(s, b)
	r.planCounters(s, b)
	r.planFlowtable(s, b)
	r.planPolicies(s, b)
	r.flushRestored(s, b)
	if err := r.planRules(s, b); err != nil {
		return false, err
	}
	r.planLeading(s, b)
	r.dropUnloadable(s, b)
	r.dropCounters(s, b)
	r.dropSets(s, b)
	r.dropFlowtables(s, b)
	return false, nil
}

// fits reports whether every set, and the chain that elements lead to, can stay. nft gives some
// of the sets that it loads from a file a size, where they had none.
func (r *ruleset) fits(s *actualRuleset) bool {
	for _, want := range r.sets {
		have, ok := s.sets[want.name]
		if ok && want.size == 0 {
			have.size = 0
		}
		if ok && have.shape != want.shape {
			return false
		}
	}
	for _, c := range r.chains {
		if have, ok := s.chains[c.name]; ok && c.name == chainDraining && have.mark != c.mark() {
			return false
		}
	}
	return true
}

// anew makes b delete the table, including additions of others, and make it.
func (r *ruleset) anew(b *wire.Batch) error {
	b.Reset()
	r.delTable(b)
	return r.create(b)
}

// create makes the whole table.
func (r *ruleset) create(b *wire.Batch) error {
	r.addTable(b)
	for _, s := range r.sets {
		r.addSet(s, b)
	}
	for _, c := range r.counters {
		r.addCounter(c, b)
	}
	for _, p := range r.policies {
		r.addPolicy(p, b)
	}
	r.addFlowtable(b)
	for _, c := range r.chains {
		r.addChain(c, b)
	}
	for _, s := range r.sets {
		if s.leads() {
			r.addMembers(s, b)
		}
	}
	return r.addRules(b)
}

// planSets creates the missing sets, and fills again those that differ. Members that lead to
// chains follow in planLeading.
func (r *ruleset) planSets(s *actualRuleset, b *wire.Batch) {
	for _, want := range r.sets {
		have, ok := s.sets[want.name]
		switch {
		case !ok:
			r.addSet(want, b)
		case !sameMembers(have.members, want.members):
			r.flushSet(want.name, b)
			if !want.leads() {
				r.addMembers(want, b)
			}
		}
	}
	for _, name := range r.unwantedMaps(s) {
		r.flushSet(name, b)
	}
}

// planLeading adds the members that lead to chains, once these are there, and deletes the maps
// that are not wanted, once no rule looks them up.
func (r *ruleset) planLeading(s *actualRuleset, b *wire.Batch) {
	for _, want := range r.sets {
		if have, ok := s.sets[want.name]; want.leads() && (!ok || !sameMembers(have.members, want.members)) {
			r.addMembers(want, b)
		}
	}
	for _, name := range r.unwantedMaps(s) {
		r.delSet(name, b)
	}
}

// unwantedMaps returns those of the maps of timeouts that are there and not wanted.
func (r *ruleset) unwantedMaps(s *actualRuleset) (names []string) {
	for _, name := range []string{mapGroupTimeouts, mapPortTimeouts} {
		_, there := s.sets[name]
		if there && !slices.ContainsFunc(r.sets, func(want set) bool { return want.name == name }) {
			names = append(names, name)
		}
	}
	return names
}

func (r *ruleset) flushSet(name string, b *wire.Batch) {
	b.Add(wire.DelElements, wire.Op{Verb: "flush set", Object: name}, func(dst []byte) []byte {
		dst = nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_TABLE, r.table)
		return nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_SET, name)
	})
}

// dropSets deletes the sets of limits and mappings that are no longer wanted, once no rule refers
// to them. So none of their elements comes to life again with a later configuration.
func (r *ruleset) dropSets(s *actualRuleset, b *wire.Batch) {
	for name := range s.sets {
		own := ownLimitSet(name) || ownMappingSet(name) || ownStaticSet(name) || ownAskSet(name)
		if own && !slices.ContainsFunc(r.sets, func(x set) bool { return x.name == name }) {
			r.delSet(name, b)
		}
	}
}

func (r *ruleset) delSet(name string, b *wire.Batch) {
	b.Add(wire.DelSet, wire.Op{Verb: "delete set", Object: name}, func(dst []byte) []byte {
		return appendSetName(dst, r.table, name)
	})
}

// leads reports whether members of the set lead to chains.
func (s set) leads() bool {
	return slices.ContainsFunc(s.members, func(m member) bool { return m.to != "" })
}

func sameMembers(have, want []member) bool {
	want = slices.SortedFunc(slices.Values(want), compareMembers)
	return slices.EqualFunc(have, want, func(a, b member) bool {
		return a.end == b.end && a.to == b.to && bytes.Equal(a.last, b.last) && compareMembers(a, b) == 0
	})
}

// planPolicies creates the wanted policies, and deletes the oldest of the others if there
// are too many. No rule refers to those.
func (r *ruleset) planPolicies(s *actualRuleset, b *wire.Batch) {
	old := maps.Clone(s.policies)
	for _, p := range r.policies {
		if _, ok := old[p.name]; !ok {
			r.addPolicy(p, b)
		}
		delete(old, p.name)
	}
	maps.DeleteFunc(old, func(name string, _ uint64) bool { return isUnloadable(name) })
	names := slices.SortedFunc(maps.Keys(old), func(a, b string) int { return cmp.Compare(old[a], old[b]) })
	kept := max(maxPolicies-len(r.policies), leastOldPolicies)
	for _, name := range names[:max(0, len(names)-kept)] {
		r.delPolicy(name, b)
	}
}

// dropUnloadable deletes the policies of ICMP that an earlier version made, once no rule
// refers to them. Their flows have the timeout of the namespace from then on.
func (r *ruleset) dropUnloadable(s *actualRuleset, b *wire.Batch) {
	for _, name := range slices.Sorted(maps.Keys(s.policies)) {
		if isUnloadable(name) {
			r.delPolicy(name, b)
		}
	}
}

func isUnloadable(policy string) bool { return strings.HasPrefix(policy, "icmp-") }

func (r *ruleset) delPolicy(name string, b *wire.Batch) {
	b.Add(wire.DelObject, wire.Op{Verb: "delete ct timeout", Object: name}, func(dst []byte) []byte {
		return appendObjectName(dst, r.table, name, unix.NFT_OBJECT_CT_TIMEOUT)
	})
}

// planRules replaces all rules when one of them, or a chain, is not as wanted.
func (r *ruleset) planRules(s *actualRuleset, b *wire.Batch) error {
	same, err := r.sameRules(s)
	if err != nil || same && r.sameChains(s) {
		return err
	}
	b.Add(wire.DelRule, wire.Op{Verb: "delete rules of table", Object: r.table}, func(dst []byte) []byte {
		return nlmsg.AppendString(dst, unix.NFTA_RULE_TABLE, r.table)
	})
	for _, name := range slices.Sorted(maps.Keys(s.chains)) {
		if !r.keepsChain(name, s.chains[name]) {
			b.Add(wire.DelChain, wire.Op{Verb: "delete chain", Object: name}, func(dst []byte) []byte {
				dst = nlmsg.AppendString(dst, unix.NFTA_CHAIN_TABLE, r.table)
				return nlmsg.AppendString(dst, unix.NFTA_CHAIN_NAME, name)
			})
		}
	}
	r.flushRates(s, b)
	for _, c := range r.chains {
		if have, ok := s.chains[c.name]; !ok || !c.is(have) {
			r.addChain(c, b)
		}
	}
	return r.addRules(b)
}

func (c chain) is(have actualChain) bool {
	return have.mark == c.mark() && have.policy == policyAccept
}

func (r *ruleset) keepsChain(name string, have actualChain) bool {
	return slices.ContainsFunc(r.chains, func(c chain) bool { return c.name == name && c.is(have) })
}

func (r *ruleset) sameChains(s *actualRuleset) bool {
	for name, have := range s.chains {
		if !r.keepsChain(name, have) {
			return false
		}
	}
	return len(s.chains) == len(r.chains)
}

// sameRules compares chain by chain: the kernel lists chains in an order of
// its own.
func (r *ruleset) sameRules(s *actualRuleset) (bool, error) {
	have, want := make(map[string][]mark), make(map[string][]mark)
	for _, x := range s.rules {
		have[x.chain] = append(have[x.chain], x.mark)
	}
	for _, x := range r.rules {
		m, err := x.mark()
		if err != nil {
			return false, fmt.Errorf("nftnat: rule of chain %s: %w", x.chain, err)
		}
		want[x.chain] = append(want[x.chain], m)
	}
	return maps.EqualFunc(have, want, slices.Equal), nil
}

const tableComment = "owned by sessiond: changes by hand are undone"

func (r *ruleset) addTable(b *wire.Batch) {
	b.Add(wire.NewTable, wire.Op{Verb: "add table", Object: r.table}, func(dst []byte) []byte {
		dst = r.appendTable(dst)
		dst = nlmsg.AppendUint32(dst, unix.NFTA_TABLE_FLAGS, 0)
		return nlmsg.AppendAttr(dst, wire.AttrTableUserdata, userdata.AppendString(nil, userdata.TypeComment, tableComment))
	})
}

func (r *ruleset) delTable(b *wire.Batch) {
	b.Add(wire.DelTable, wire.Op{Verb: "delete table", Object: r.table}, r.appendTable)
}

func (r *ruleset) appendTable(dst []byte) []byte {
	return nlmsg.AppendString(dst, unix.NFTA_TABLE_NAME, r.table)
}

func (r *ruleset) addSet(s set, b *wire.Batch) {
	b.Add(wire.NewSet, wire.Op{Verb: "add set", Object: s.name}, func(dst []byte) []byte {
		return s.appendSet(dst, r.table)
	})
	if !s.leads() {
		r.addMembers(s, b)
	}
}

func (r *ruleset) addMembers(s set, b *wire.Batch) {
	b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: s.name}, r.table, s.name, len(s.members),
		func(dst []byte, i int) []byte { return appendMember(dst, s.members[i]) })
}

func (r *ruleset) addPolicy(p policy, b *wire.Batch) {
	b.Add(wire.NewObject, wire.Op{Verb: "add ct timeout", Object: p.name}, func(dst []byte) []byte {
		return p.appendObject(dst, r.table)
	})
}

func (r *ruleset) addChain(c chain, b *wire.Batch) {
	b.Add(wire.NewChain, wire.Op{Verb: "add chain", Object: c.name}, func(dst []byte) []byte {
		dst = nlmsg.AppendString(dst, unix.NFTA_CHAIN_TABLE, r.table)
		dst = nlmsg.AppendString(dst, unix.NFTA_CHAIN_NAME, c.name)
		m := c.mark()
		udata := userdata.Append(withComment(nil, userdata.TypeComment, chainComment(c.name)), markType, m[:])
		dst = nlmsg.AppendAttr(dst, wire.AttrChainUserdata, udata)
		if c.kind == "" {
			return dst
		}
		hook := len(dst)
		dst = nlmsg.BeginNested(dst, unix.NFTA_CHAIN_HOOK)
		dst = nlmsg.AppendUint32(dst, unix.NFTA_HOOK_HOOKNUM, c.hook)
		dst = nlmsg.AppendUint32(dst, unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		dst = nlmsg.EndNested(dst, hook)
		dst = nlmsg.AppendUint32(dst, unix.NFTA_CHAIN_POLICY, policyAccept)
		return nlmsg.AppendString(dst, unix.NFTA_CHAIN_TYPE, c.kind)
	})
}

func (r *ruleset) addRules(b *wire.Batch) error {
	for _, x := range r.rules {
		if err := r.addRule(x, b); err != nil {
			return fmt.Errorf("nftnat: rule of chain %s: %w", x.chain, err)
		}
	}
	return nil
}

func (r *ruleset) addRule(x rule, b *wire.Batch) error {
	m, err := x.mark()
	if err != nil {
		return err
	}
	var exprs []byte
	for _, e := range x.exprs {
		data, err := marshal(e)
		if err != nil {
			return err
		}
		exprs = nlmsg.AppendAttr(exprs, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, data)
	}
	var udata []byte
	if x.comment != "" {
		udata = userdata.AppendString(udata, userdata.TypeComment, x.comment)
	}
	udata = userdata.Append(udata, markType, m[:])
	b.Add(wire.NewRule, wire.Op{Verb: "add rule to chain", Object: x.chain}, func(dst []byte) []byte {
		dst = nlmsg.AppendString(dst, unix.NFTA_RULE_TABLE, r.table)
		dst = nlmsg.AppendString(dst, unix.NFTA_RULE_CHAIN, x.chain)
		dst = nlmsg.AppendAttr(dst, unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, exprs)
		return nlmsg.AppendAttr(dst, unix.NFTA_RULE_USERDATA, udata)
	})
	return nil
}

// The present table.

// mark is a fingerprint of a chain or rule in its user-data. A later start compares it with
// that of the wanted one: the kernel does not give back a rule as it was sent. Replacing a
// rule by hand drops its mark.
type mark [8]byte

// markType is a user-data type that nft does not use and passes over.
const markType userdata.Type = 0xf5

func (r rule) mark() (mark, error) {
	h := sha256.New()
	h.Write([]byte(r.chain + "\x00" + r.comment + "\x00"))
	for _, e := range r.exprs {
		b, err := marshal(e)
		if err != nil {
			return mark{}, err
		}
		h.Write(b)
	}
	return mark(h.Sum(nil)[:len(mark{})]), nil
}

func (c chain) mark() mark {
	b := []byte(c.kind)
	b = binary.BigEndian.AppendUint32(b, c.hook)
	b = binary.BigEndian.AppendUint32(b, uint32(c.priority))
	sum := sha256.Sum256(b)
	return mark(sum[:len(mark{})])
}

func findMark(udata []byte) mark {
	for len(udata) >= 2 && len(udata) >= 2+int(udata[1]) {
		value := udata[2 : 2+int(udata[1])]
		if userdata.Type(udata[0]) == markType && len(value) == len(mark{}) {
			return mark(value)
		}
		udata = udata[2+len(value):]
	}
	return mark{}
}

// actualRuleset is the table in the kernel, without its elements.
type actualRuleset struct {
	exists   bool
	dormant  bool // another program disabled the whole table
	chains   map[string]actualChain
	rules    []actualRule // in the kernel's order
	sets     map[string]actualSet
	policies map[string]uint64 // handles, which grow with age
	counters map[string]tally
	fast     []actualFlowtable
}

type actualChain struct {
	mark   mark
	policy uint32 // policyAccept for chains without a hook, too
}

type actualRule struct {
	chain string
	mark  mark
}

type actualSet struct {
	shape
	members []member // in order of key; not read for gate, block, static maps and those that packets make
}

// readActual reads the table. A table that is not there is no error.
func readActual(ctx context.Context, conn *wire.Conn, table string) (*actualRuleset, error) {
	s := &actualRuleset{}
	err := conn.Get(ctx, wire.GetTable, func(dst []byte) []byte {
		return nlmsg.AppendString(dst, unix.NFTA_TABLE_NAME, table)
	}, func(attrs []byte) {
		s.exists = true
		s.dormant = nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_TABLE_FLAGS))&unix.NFT_TABLE_F_DORMANT != 0
	})
	if errors.Is(err, unix.ENOENT) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	for _, read := range []func(context.Context, *wire.Conn, string) error{
		s.readChains, s.readRules, s.readObjects, s.readSets, s.readFlowtables,
	} {
		if err := read(ctx, conn, table); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *actualRuleset) readChains(ctx context.Context, conn *wire.Conn, table string) error {
	return list(ctx, conn, wire.GetChain, table, unix.NFTA_CHAIN_TABLE, func() {
		s.chains = make(map[string]actualChain)
	}, func(attrs []byte) {
		c := actualChain{mark: findMark(nlmsg.Attr(attrs, wire.AttrChainUserdata)), policy: policyAccept}
		if p := nlmsg.Attr(attrs, unix.NFTA_CHAIN_POLICY); p != nil {
			c.policy = nlmsg.Uint32(p)
		}
		s.chains[nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_CHAIN_NAME))] = c
	})
}

func (s *actualRuleset) readRules(ctx context.Context, conn *wire.Conn, table string) error {
	return list(ctx, conn, wire.GetRule, table, unix.NFTA_RULE_TABLE, func() { s.rules = nil }, func(attrs []byte) {
		s.rules = append(s.rules, actualRule{
			chain: nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_RULE_CHAIN)),
			mark:  findMark(nlmsg.Attr(attrs, unix.NFTA_RULE_USERDATA)),
		})
	})
}

func (s *actualRuleset) readObjects(ctx context.Context, conn *wire.Conn, table string) error {
	return list(ctx, conn, wire.GetObject, table, unix.NFTA_OBJ_TABLE, func() {
		s.policies, s.counters = make(map[string]uint64), make(map[string]tally)
	}, func(attrs []byte) {
		name := nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_OBJ_NAME))
		switch nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_OBJ_TYPE)) {
		case unix.NFT_OBJECT_COUNTER:
			s.counters[name] = parseTally(attrs)
		case unix.NFT_OBJECT_CT_TIMEOUT:
			if handle := nlmsg.Attr(attrs, wire.AttrObjectHandle); len(handle) == 8 {
				s.policies[name] = binary.BigEndian.Uint64(handle)
			}
		}
	})
}

func (s *actualRuleset) readSets(ctx context.Context, conn *wire.Conn, table string) error {
	err := list(ctx, conn, wire.GetSet, table, unix.NFTA_SET_TABLE, func() {
		s.sets = make(map[string]actualSet)
	}, func(attrs []byte) {
		s.sets[nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_SET_NAME))] = actualSet{shape: parseShape(attrs)}
	})
	if err != nil {
		return err
	}
	for name, set := range s.sets {
		if name == mapGate || name == mapBlock || isStaticMap(name) || set.countedByPackets() {
			continue
		}
		err := elements(ctx, conn, table, name, func() { set.members = nil }, func(attrs []byte) {
			set.members = append(set.members, parseMember(attrs))
		})
		if err != nil {
			return err
		}
		slices.SortFunc(set.members, compareMembers)
		s.sets[name] = set
	}
	return nil
}

func compareMembers(a, b member) int { return bytes.Compare(a.key, b.key) }

// list dumps the chains, rules, sets or objects of one table. The kernel does
// not filter all of them by table.
func list(ctx context.Context, conn *wire.Conn, cmd wire.Command, table string, tableAttr uint16, restart func(), yield func([]byte)) error {
	return conn.Dump(ctx, cmd, func(dst []byte) []byte {
		return nlmsg.AppendString(dst, tableAttr, table)
	}, restart, func(attrs []byte) {
		if nlmsg.String(nlmsg.Attr(attrs, tableAttr)) == table {
			yield(attrs)
		}
	})
}

// elements dumps the elements of one set.
func elements(ctx context.Context, conn *wire.Conn, table, set string, restart func(), yield func([]byte)) error {
	return conn.Dump(ctx, wire.GetElements, func(dst []byte) []byte {
		dst = nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_TABLE, table)
		return nlmsg.AppendString(dst, unix.NFTA_SET_ELEM_LIST_SET, set)
	}, restart, func(attrs []byte) {
		for _, e := range nlmsg.Attrs(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			yield(e)
		}
	})
}

// expiringElements dumps a set whose elements expire. The kernel begins each part of a dump by a
// number of elements, and passes over others if some have expired since the part before. So it
// dumps again, until there were as many elements before and behind a dump as in it, or a dump has no
// further one that is wanted.
//
// yield gets each element once. It reports whether the element is wanted: one that was there before,
// and that the caller must not miss. Others come all the time, and must not keep this going.
func expiringElements(ctx context.Context, conn *wire.Conn, table, set string, yield func(attrs []byte) (wanted bool)) error {
	seen := map[string]struct{}{}
	for {
		before, err := countElements(ctx, conn, table, set)
		if err != nil {
			return err
		}
		n, further := 0, false
		err = elements(ctx, conn, table, set, func() { n = 0 }, func(attrs []byte) {
			n++
			key := string(parseKey(attrs))
			if _, known := seen[key]; !known {
				seen[key] = struct{}{}
				further = yield(attrs) || further
			}
		})
		if err != nil || !further {
			return err
		}
		behind, err := countElements(ctx, conn, table, set)
		if err != nil || before == n && behind == n {
			return err
		}
	}
}
