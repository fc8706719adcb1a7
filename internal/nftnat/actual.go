package nftnat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

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
		b, err := expr.Marshal(unix.NFPROTO_IPV4, e)
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
	members []member // in order of key; not read for gate, block and ungated
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
		s.readChains, s.readRules, s.readPolicies, s.readSets,
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

func (s *actualRuleset) readPolicies(ctx context.Context, conn *wire.Conn, table string) error {
	return list(ctx, conn, wire.GetObject, table, unix.NFTA_OBJ_TABLE, func() {
		s.policies = make(map[string]uint64)
	}, func(attrs []byte) {
		handle := nlmsg.Attr(attrs, wire.AttrObjectHandle)
		if nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_OBJ_TYPE)) != unix.NFT_OBJECT_CT_TIMEOUT || len(handle) != 8 {
			return
		}
		s.policies[nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_OBJ_NAME))] = binary.BigEndian.Uint64(handle)
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
		if name == mapGate || name == mapBlock || name == setUngated {
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
