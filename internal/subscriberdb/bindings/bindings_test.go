package bindings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

var (
	t0   = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	addr = netip.MustParseAddr("100.64.0.1")
	next = netip.MustParseAddr("100.64.0.2")
	away = netip.MustParseAddr("100.70.0.1")
)

func newStore(client redis.UniversalClient) *Store {
	return New(Options{
		Client: redisconn.New(client, Scripts()...), Groups: func() []string { return []string{"default"} },
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
}

// outsideAt returns one of many outside addresses.
func outsideAt(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}) }

// named returns a binding with a user name, to distinguish bindings of one block.
func named(outside netip.Addr, first nat.Port, name string) nat.Binding {
	return nat.Binding{Group: "default", Blocks: nat.Blocks{Block: nat.Block{Outside: outside, First: first, Last: first + 511}}, Holder: nat.Holder{Inside: addr, UserName: name}}
}

// rowsOf returns the names of the stored bindings, as read by a scan.
func rowsOf(t testing.TB, store *Store) map[nat.Place]string {
	t.Helper()
	names := map[nat.Place]string{}
	err := store.BindingRows(t.Context(), "default", func(rows []Row) error {
		for i := range rows {
			b, ok := rows[i].Binding()
			if _, twice := names[rows[i].Place]; twice || !ok || !rows[i].Stored() {
				return fmt.Errorf("row %v: twice: %v, read: %v", rows[i].Place, twice, ok)
			}
			names[rows[i].Place] = b.UserName
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// rowsAt returns the names of the stored bindings, as read by block.
func rowsAt(t testing.TB, store *Store, blocks []nat.Place) map[nat.Place]string {
	t.Helper()
	rows, err := store.BindingRowsAt(t.Context(), "default", blocks)
	if err != nil {
		t.Fatal(err)
	}
	names := map[nat.Place]string{}
	for i := range rows {
		if b, ok := rows[i].Binding(); rows[i].Stored() && ok {
			names[rows[i].Place] = b.UserName
		}
	}
	return names
}

// TestBindingsWalk: after any writes, many and few, of blocks of many addresses, the stored
// bindings are those of a simple map. Some writes are those of an earlier version, into its
// single key.
func TestBindingsWalk(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client)
		random := rand.New(rand.NewPCG(11, 12))
		var blocks []nat.Place
		for i := range 700 {
			blocks = append(blocks, nat.Place{Outside: outsideAt(i), First: 1024}, nat.Place{Outside: outsideAt(i), First: 1536})
		}
		want := map[nat.Place]string{}
		for round := range 15 {
			n := []int{1, 20, 700, 1300}[random.IntN(4)]
			picked := random.Perm(len(blocks))[:n]
			var put []nat.Binding
			var remove []nat.Place
			for _, i := range picked {
				b := blocks[i]
				fate := random.IntN(4)
				if fate > 1 { // remove, or remove and write
					remove = append(remove, b)
					delete(want, b)
				}
				if fate < 3 {
					want[b] = fmt.Sprint(round)
					put = append(put, named(b.Outside, b.First, want[b]))
				}
			}
			if round%10 == 3 { // the next process takes over
				store = newStore(client)
				for _, b := range put {
					client.HSet(t.Context(), codec.OldBindingsKey("default"), codec.FormatPlace(b.Place()), codec.AppendBinding(nil, &b))
				}
				for _, b := range remove {
					if _, ok := want[b]; !ok {
						client.HDel(t.Context(), codec.BindingsKey("default", codec.BindingPart(b.Outside)), codec.FormatPlace(b))
					}
				}
				client.HSet(t.Context(), codec.OldBindingsKey("default"), "nonsense", "{}")
			} else if err := store.SaveBindings(t.Context(), "default", put, remove); err != nil {
				t.Fatal(err)
			}
			compareRows(t, "walk", rowsOf(t, store), want)
			compareRows(t, "by block", rowsAt(t, store, blocks), want)
		}
		if n := client.Exists(t.Context(), codec.OldBindingsKey("default")).Val(); n != 0 {
			t.Error("the key of before is left")
		}
		if got := client.HGet(t.Context(), codec.BindingsKey("default", 0), "nonsense").Val(); got != "{}" {
			t.Errorf("what is no binding became %q", got)
		}
	})
}

func compareRows(t testing.TB, what string, got, want map[nat.Place]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Fatalf("%s: %d bindings, want %d", what, len(got), len(want))
	}
}

// oldBindings stores n bindings as earlier versions did, and returns them.
func oldBindings(t testing.TB, client redis.UniversalClient, n int) map[nat.Place]string {
	t.Helper()
	want := map[nat.Place]string{}
	pipe := client.Pipeline()
	for i := range n {
		b := named(outsideAt(i/4), nat.Port(1024+i%4*512), fmt.Sprint("user", i))
		want[b.Place()] = b.UserName
		pipe.HSet(t.Context(), codec.OldBindingsKey("default"), codec.FormatPlace(b.Place()), codec.AppendBinding(nil, &b))
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	return want
}

// breakAfter lets some moves of bindings succeed, and then fails.
type breakAfter struct {
	redis.Hook
	mu   sync.Mutex
	left int
}

var errBroken = errors.New("broken off")

func (h *breakAfter) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *breakAfter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *breakAfter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if args := cmds[len(cmds)-1].Args(); args[0] == "evalsha" && args[1] == moveScript.Hash() {
			h.mu.Lock()
			h.left--
			broken := h.left < 0
			h.mu.Unlock()
			if broken {
				return errBroken
			}
		}
		return next(ctx, cmds)
	}
}

// TestMoveBrokenOff_I7: a move that is interrupted anywhere loses no binding and shows none
// twice, and the next process continues it.
func TestMoveBrokenOff_I7(t *testing.T) {
	url := testenv.StartRedis(t).URL
	server := redistest.Dial(t, url)
	for after := range 9 {
		server.FlushAll(t.Context())
		want := oldBindings(t, server, 5*moveChunk+17)
		var blocks []nat.Place
		for b := range want {
			blocks = append(blocks, b)
		}
		if after > 0 { // as if an earlier version ran again after the move
			stale := named(blocks[0].Outside, blocks[0].First, "stale")
			server.HSet(t.Context(), codec.BindingsKey("default", codec.BindingPart(stale.Outside)), codec.FormatPlace(blocks[0]), codec.AppendBinding(nil, &stale))
		}
		client := redistest.Dial(t, url)
		client.AddHook(&breakAfter{left: after})
		store := newStore(client)
		more := named(outsideAt(9000), 1024, "new")
		err := store.SaveBindings(t.Context(), "default", []nat.Binding{more}, nil)
		if broken := errors.Is(err, errBroken); broken != (server.Exists(t.Context(), codec.OldBindingsKey("default")).Val() > 0) {
			t.Fatalf("after %d moves: %v, and the key of before says otherwise", after, err)
		}
		if err == nil {
			want[more.Place()] = "new"
			blocks = append(blocks, more.Place())
		}
		compareRows(t, "walk", rowsOf(t, store), want)
		compareRows(t, "by block", rowsAt(t, store, blocks), want)

		store = newStore(server)
		compareRows(t, "walk of the next", rowsOf(t, store), want)
		if err := store.SaveBindings(t.Context(), "default", []nat.Binding{more}, nil); err != nil {
			t.Fatal(err)
		}
		want[more.Place()] = "new"
		compareRows(t, "walk behind the move", rowsOf(t, store), want)
		if n := server.Exists(t.Context(), codec.OldBindingsKey("default")).Val(); n != 0 {
			t.Fatal("the key of before is left")
		}
	}
}

// TestReadsDuringMove: a reader misses no binding while they are moved.
func TestReadsDuringMove(t *testing.T) {
	client := redistest.Start(t)
	want := oldBindings(t, client, 8000)
	var blocks []nat.Place
	for b := range want {
		blocks = append(blocks, b)
	}
	store, reader := newStore(client), newStore(client)
	moved := make(chan error, 1)
	go func() { moved <- store.moveBindings(t.Context(), "default") }()
	for rounds, done := 0, false; !done || rounds < 3; rounds++ {
		select {
		case err := <-moved:
			if done = true; err != nil {
				t.Fatal(err)
			}
		default:
		}
		seen := map[nat.Place]bool{}
		err := reader.BindingRows(t.Context(), "default", func(rows []Row) error {
			for i := range rows {
				seen[rows[i].Place] = true
			}
			return nil
		})
		if err != nil || len(seen) != len(want) {
			t.Fatalf("round %d: %d bindings of %d, %v", rounds, len(seen), len(want), err)
		}
		compareRows(t, "by block", rowsAt(t, reader, blocks), want)
	}
}

// TestOldBackupOfBindings: a backup from a version with one key is restored while a daemon
// runs that had moved the bindings; its next write replaces the old values.
func TestOldBackupOfBindings(t *testing.T) {
	client := redistest.Start(t)
	store := newStore(client)
	b := named(outsideAt(1), 1024, "now")
	save := func() {
		t.Helper()
		if err := store.SaveBindings(t.Context(), "default", []nat.Binding{b}, nil); err != nil {
			t.Fatal(err)
		}
	}
	block := b.Place()
	for _, read := range []func() map[nat.Place]string{
		func() map[nat.Place]string { return rowsOf(t, store) },
		func() map[nat.Place]string { return rowsAt(t, store, []nat.Place{block}) },
	} {
		save()
		client.FlushAll(t.Context())
		oldBindings(t, client, 8)
		if got := read()[block]; !strings.HasPrefix(got, "user") {
			t.Errorf("restored, it is %q", got)
		}
		save()
		if got := read()[block]; got != "now" {
			t.Errorf("written again, it is %q", got)
		}
	}
}

// TestBindingParts: the bindings of a pool are spread evenly, and each write stays small.
func TestBindingParts(t *testing.T) {
	client := redistest.Start(t)
	store := newStore(client)
	put := make([]nat.Binding, 0, 40_000)
	for i := range cap(put) {
		put = append(put, named(outsideAt(i/64), nat.Port(1024+i%64*512), "u"))
	}
	if err := store.SaveBindings(t.Context(), "default", put, nil); err != nil {
		t.Fatal(err)
	}
	parts, err := store.filledParts(t.Context(), "default")
	if err != nil || len(parts) != codec.BindingParts {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	for _, p := range parts {
		if n := client.HLen(t.Context(), codec.BindingsKey("default", p)).Val(); n > 40_000/codec.BindingParts*3/2 {
			t.Errorf("%d bindings in part %d", n, p)
		}
	}
}

// TestBindings: a stored binding is read unchanged; a removed one, and garbage, are not
// read.
func TestBindings(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client)
		outside := netip.MustParseAddr("198.51.100.1")
		active := nat.Binding{Group: "default", State: nat.Active, AllocatedAt: t0, GraceUntil: t0.Add(time.Minute), Blocks: nat.Blocks{Block: nat.Block{Outside: outside, First: 1024, Last: 1535}}, Holder: nat.Holder{Inside: addr, Identity: "u:a\xff", UserName: "a\xff", AcctSessionID: "s1"}}
		held := nat.Binding{Group: "default", State: nat.Held, AllocatedAt: t0, ReleasedAt: t0.Add(time.Hour), HoldUntil: t0.Add(2 * time.Hour), Receipt: &nat.Receipt{CutAt: t0, ReapedAt: t0.Add(time.Second), ReleasedAt: t0.Add(2 * time.Second), Elements: 2, Deleted: 7, Proof: nat.ProofIndex}, Blocks: nat.Blocks{Block: nat.Block{Outside: outside, First: 1536, Last: 2047}}, Holder: nat.Holder{Inside: next, UserName: "bob"}}
		gone := nat.Binding{Group: "default", Blocks: nat.Blocks{Block: nat.Block{Outside: outside, First: 65024, Last: 65535}}, Holder: nat.Holder{Inside: away}}
		save := func(put []nat.Binding, remove []nat.Place) {
			if err := store.SaveBindings(t.Context(), "default", put, remove); err != nil {
				t.Fatal(err)
			}
		}
		save([]nat.Binding{active, held, gone}, nil)
		save(nil, []nat.Place{{Outside: outside, First: 65024}})
		client.HSet(t.Context(), codec.BindingsKey("default", 1), "nonsense", "{}")
		got := map[nat.Port]nat.Binding{}
		err := store.BindingRows(t.Context(), "default", func(rows []Row) error {
			for i := range rows {
				if b, ok := rows[i].Binding(); ok {
					got[b.First] = b
				}
			}
			return nil
		})
		if want := map[nat.Port]nat.Binding{1024: active, 1536: held}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	})
}
