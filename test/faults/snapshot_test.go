package faults

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// key is the name of the line's record in Redis.
func (l *line) key() string { return l.group.keys() + "sub:" + l.inside.String() }

// A binding is a line of `sessionctl -o json binding list`.
type binding struct {
	Group   string       `json:"group"`
	Inside  netip.Addr   `json:"inside_address"`
	Outside netip.Addr   `json:"outside_address"`
	Blocks  []blockPorts `json:"blocks"` // the newest last
	State   string       `json:"state"`
	User    string       `json:"user_name"`
}

// blockPorts has the ports of a block.
type blockPorts struct {
	First uint16 `json:"first_port"`
	Last  uint16 `json:"last_port"`
}

func (b *binding) String() string {
	return fmt.Sprintf("%s %s of %s: %s %v", b.Inside, b.State, b.User, b.Outside, b.Blocks)
}

// block returns the block of new sessions.
func (b *binding) block() string {
	newest := b.Blocks[len(b.Blocks)-1]
	return fmt.Sprintf("%s:%d-%d", b.Outside, newest.First, newest.Last)
}

// ranges returns the possible ranges of new sessions: blocks, and such that adjoin each other.
func (b *binding) ranges() (all []string) {
	sorted := slices.SortedFunc(slices.Values(b.Blocks), func(a, b blockPorts) int { return cmp.Compare(a.First, b.First) })
	for i := range sorted {
		for j := i; j < len(sorted) && (j == i || sorted[j-1].Last+1 == sorted[j].First); j++ {
			all = append(all, fmt.Sprintf("%s:%d-%d", b.Outside, sorted[i].First, sorted[j].Last))
		}
	}
	return all
}

// is reports whether the binding is in that state.
func (b *binding) is(state string) bool { return b.State == "BINDING_STATE_"+state }

func (b *binding) covers(a netip.AddrPort) bool {
	return a.Addr() == b.Outside &&
		slices.ContainsFunc(b.Blocks, func(p blockPorts) bool { return p.First <= a.Port() && a.Port() <= p.Last })
}

// A pool is a line of `sessionctl -o json pool list`.
type pool struct {
	Group  string `json:"group"`
	Prefix string `json:"outside_prefix"`
	Total  int    `json:"blocks_total"`
	Used   int    `json:"blocks_used"`
	Held   int    `json:"blocks_held"`
	Free   int    `json:"blocks_free"`

	Draining bool `json:"draining"`
}

// status is the used part of `sessionctl -o json status`.
type status struct {
	Ready   bool   `json:"ready"`
	Why     string `json:"not_ready_reason"`
	Suspect string `json:"database_suspect_reason"`
	Groups  []struct {
		Name                                              string
		Subscribers, Pending, Active, Draining, Cut, Held int
	} `json:"groups"`
}

// A record is the data in Redis about an online subscriber.
type record struct{ user, session, nas string }

// An entry is a conntrack entry of an inside address.
type entry struct {
	protocol string
	inside   netip.AddrPort // port or ICMP id
	seen     netip.AddrPort // as the internet sees it
	remote   netip.AddrPort
	inbound  bool // begun by the remote
	expires  time.Duration
	id       string
	text     string
}

// A snapshot is all state that is visible from outside. Its parts are read one after the
// other.
type snapshot struct {
	records  map[netip.Addr]record
	stored   map[string]storedBinding // by outside address and first port
	bindings []binding
	pools    []pool
	mappings []mappingRow
	status   status
	gates    map[netip.Addr]string // verdicts
	blocks   map[netip.Addr]string // as binding.block formats them
	named    map[string][]string   // by set or map but these two: its elements, as texts of their parts
	entries  []entry
	foreign  string
	routes   string

	mostBlocks     int             // of one binding
	storedMappings map[string]bool // by protocol and outside endpoint: whether it is in quarantine

	briefRecords map[netip.Addr]bool // of group brief: whether a record exists
	briefFrom    time.Time           // time of that read
}

// storedBinding is a row of the bindings in Redis (docs/redis.md).
type storedBinding struct {
	Inside    netip.Addr  `json:"inside"`
	Last      uint16      `json:"last"`
	More      [][2]uint16 `json:"more"` // first and last port of each further block
	Held      bool        `json:"held"`
	Identity  string      `json:"identity"`
	Allocated time.Time   `json:"allocated_at"`
	First     time.Time   `json:"first_allocated_at"` // when the session got its first block, if that was taken away
	Grown     time.Time   `json:"grown_at"`           // when the newest of several blocks was given
	Released  time.Time   `json:"released_at"`
	Receipt   *struct {
		Elements int `json:"elements_removed"`
		Deleted  int `json:"sessions_deleted"`
	} `json:"receipt"`
}

// since is when the binding's session got its first block.
func (b storedBinding) since() time.Time {
	if b.First.IsZero() {
		return b.Allocated
	}
	return b.First
}

func (w *world) look(ctx context.Context) (*snapshot, error) {
	s := &snapshot{}
	for _, read := range []func(context.Context, *snapshot) error{
		w.lookRedis, w.lookBriefs, w.lookControl, w.lookNft, w.lookConntrack,
	} {
		if err := read(ctx, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (w *world) lookRedis(ctx context.Context, s *snapshot) error {
	var keys []string
	for _, g := range groups {
		more, err := w.db.Keys(ctx, g.keys()+"sub:*").Result()
		if err != nil {
			return err
		}
		keys = append(keys, more...)
	}
	s.records = make(map[netip.Addr]record, len(keys))
	rows := make([]*redis.SliceCmd, len(keys))
	_, err := w.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, k := range keys {
			rows[i] = p.HMGet(ctx, k, "user_name", "acct_session_id", "nas")
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, k := range keys {
		inside, err := netip.ParseAddr(k[strings.LastIndex(k, ":")+1:])
		if err != nil {
			return err
		}
		v := rows[i].Val()
		if v[0] == nil { // expired between the two reads
			continue
		}
		s.records[inside] = record{fmt.Sprint(v[0]), fmt.Sprint(v[1]), fmt.Sprint(v[2])}
	}
	if s.storedMappings, err = w.lookStoredMappings(ctx); err != nil {
		return err
	}
	s.stored, err = w.lookStored(ctx)
	return err
}

func (w *world) lookStored(ctx context.Context) (map[string]storedBinding, error) {
	stored := map[string]storedBinding{}
	var keys []string
	for _, g := range groups {
		more, err := w.db.Keys(ctx, g.keys()+"bindings*").Result()
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	more, err := w.db.Keys(ctx, briefKeys+"bindings*").Result()
	if err != nil {
		return nil, err
	}
	keys = append(keys, more...)
	rows := make([]*redis.MapStringStringCmd, len(keys))
	_, err = w.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, k := range keys {
			rows[i] = p.HGetAll(ctx, k)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		for block, text := range row.Val() {
			var b storedBinding
			if err := json.Unmarshal([]byte(text), &b); err != nil {
				return nil, fmt.Errorf("stored binding %s: %w", text, err)
			}
			stored[block] = b
		}
	}
	return stored, nil
}

func (w *world) lookControl(ctx context.Context, s *snapshot) error {
	out, err := w.Daemon.Ctl(ctx, "-o", "json", "binding", "list")
	if err != nil {
		return err
	}
	if s.bindings, err = decodeLines[binding](out); err != nil {
		return err
	}
	if s.pools, err = w.listPools(ctx); err != nil {
		return err
	}
	if s.mappings, err = w.listMappings(ctx); err != nil {
		return err
	}
	if out, err = w.Daemon.Ctl(ctx, "-o", "json", "status"); err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), &s.status)
}

func (w *world) listPools(ctx context.Context) ([]pool, error) {
	out, err := w.Daemon.Ctl(ctx, "-o", "json", "pool", "list")
	if err != nil {
		return nil, err
	}
	return decodeLines[pool](out)
}

func decodeLines[T any](text string) ([]T, error) {
	var all []T
	for line := range strings.Lines(text) {
		var one T
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// lookForeign adds the state of others than sessiond.
func (w *world) lookForeign(ctx context.Context, s *snapshot) error {
	out, err := w.Lab.CGN.Output(ctx, "nft", "list", "table", "inet", "foreign")
	if err != nil {
		return err
	}
	s.foreign = string(out)
	out, err = w.Lab.CGN.Output(ctx, "ip", "route")
	s.routes = string(out)
	return err
}
