package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// faultyKernel is the in-memory kernel with faults.
type faultyKernel struct {
	*memnat.NAT
	clings   atomic.Pointer[netip.Addr] // the entries of this address keep coming back
	prefixes error                      // error of SetPrefixes
	own      netip.Addr                 // address of the machine
}

func (k *faultyKernel) Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error) {
	proofs, err := k.NAT.Reap(ctx, inside)
	proved := proofs[:0]
	for _, r := range proofs {
		if clings := k.clings.Load(); clings == nil || r.Inside != *clings {
			proved = append(proved, r)
		}
	}
	return proved, err
}

func (k *faultyKernel) OwnAddressIn(p netip.Prefix) (netip.Addr, error) {
	if p.Contains(k.own) {
		return k.own, nil
	}
	return k.NAT.OwnAddressIn(p)
}

func (k *faultyKernel) SetPrefixes(ctx context.Context, inside, outside []netip.Prefix, m nftnat.Mappings) error {
	if k.prefixes != nil {
		return k.prefixes
	}
	return k.NAT.SetPrefixes(ctx, inside, outside, m)
}

// TestClingingEntriesHoldUpNobody_I5: an address whose conntrack entries keep
// coming back stays cut. Others are reaped meanwhile.
func TestClingingEntriesHoldUpNobody_I5(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	kernel := &faultyKernel{NAT: w.nat}
	kernel.clings.Store(&alice)
	w.kernel = kernel
	w.boot()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Cut)
	w.send(subscriber.EventStop, bob, "b", "2")
	w.awaitState(bob, nat.Held)
	if _, ok := w.bindings(alice)[nat.Cut]; !ok {
		t.Errorf("alice's block left her without proof: %+v", w.bindings(alice))
	}
	kernel.clings.Store(nil)
	w.awaitState(alice, nat.Held)
}

// TestRefusedGroups: a configuration that the kernel refuses changes nothing.
func TestRefusedGroups(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	kernel := &faultyKernel{NAT: w.nat}
	w.kernel = kernel
	w.boot()
	kernel.prefixes = errors.New("refused")
	before, _ := w.Pools(context.Background())
	grown := testGroup
	grown.Outside = append([]netip.Prefix{netip.MustParsePrefix("203.0.113.0/28")}, grown.Outside...)
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{grown}); !errors.Is(err, kernel.prefixes) {
		t.Errorf("got %v, want %v", err, kernel.prefixes)
	}
	if after, _ := w.Pools(context.Background()); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("pools are %v, were %v", after, before)
	}
}

// TestDatabaseFromThePast_I6: the feed of an emptied database may begin with
// ids below those of the lost one. Its changes are applied all the same.
func TestDatabaseFromThePast_I6(t *testing.T) {
	w := newWorld(t, testGroup)
	ctx := context.Background()
	future := fmt.Sprintf("%d-0", time.Now().Add(time.Hour).UnixMilli())
	err := w.client.XAdd(ctx, &redis.XAddArgs{
		Stream: "sessiond:{default}:feed", ID: future, Values: []string{"kind", "nas_restart"},
	}).Err()
	if err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	if err := w.client.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	w.until("the alarm", func() bool { return w.suspicion() != "" })
	w.until("the record to be back", func() bool {
		if w.suspicion() == "" {
			t.Fatal("the alarm ended before a BNG confirmed the record")
		}
		n, err := w.client.Exists(ctx, "sessiond:{default}:sub:"+alice.String()).Result()
		return err == nil && n == 1
	})
	w.send(subscriber.EventInterim, alice, "a", "1")
	w.until("the all-clear", func() bool { return w.suspicion() == "" })
	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
	w.awaitState(alice, nat.Held)
}

// backup returns everything that the database contains.
func (w *world) backup() map[string]string {
	w.t.Helper()
	keys, err := w.client.Keys(context.Background(), "sessiond:{default}:*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	dumps := map[string]string{}
	for _, key := range keys {
		dumps[key] = w.client.Dump(context.Background(), key).Val()
	}
	return dumps
}

// rewind restores a backup into the database.
func (w *world) rewind(past map[string]string) {
	w.t.Helper()
	ctx := context.Background()
	now, err := w.client.Keys(ctx, "sessiond:{default}:*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Del(ctx, now...)
		for key, dump := range past {
			p.RestoreReplace(ctx, key, time.Minute, dump)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestDatabaseRewound_I6: a database went back in time, and took new events
// before a comparison. Its feed ends after the last position, and yet the
// records missing from it were not deleted.
func TestDatabaseRewound_I6(t *testing.T) {
	w := newWorld(t, testGroup, unnotified)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.reconciling.Lock() // no comparison meanwhile
	past := w.backup()
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(bob, nat.Active)
	w.rewind(past)
	w.send(subscriber.EventInterim, alice, "a", "1")
	w.reconciling.Unlock()
	w.until("the alarm", func() bool { return w.suspicion() != "" })
	w.until("bob's record to be back", func() bool {
		n, err := w.client.Exists(w.t.Context(), "sessiond:{default}:sub:"+bob.String()).Result()
		return err == nil && n == 1
	})
	w.awaitState(bob, nat.Active)
}

// TestDatabaseWithAnEarlierSession_I6: in a database that went back in time an
// address belongs to a session that has ended since. The present session stays.
func TestDatabaseWithAnEarlierSession_I6(t *testing.T) {
	w := newWorld(t, testGroup)
	ctx := context.Background()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	past := w.backup()
	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
	w.send(subscriber.EventStart, alice, "b", "2")
	w.until("b's binding", func() bool { return w.bindings(alice)[nat.Active].UserName == "b" })
	block := w.bindings(alice)[nat.Active].Block
	w.flow(alice, 4000)
	w.rewind(past)
	w.until("b's record to be back", func() bool {
		return w.client.HGet(ctx, "sessiond:{default}:sub:"+alice.String(), "user_name").Val() == "b"
	})
	w.send(subscriber.EventInterim, alice, "b", "2")
	w.until("the all-clear", func() bool { return w.suspicion() == "" })
	if b := w.bindings(alice)[nat.Active]; b.Block != block || b.UserName != "b" || b.Sessions != 1 {
		t.Errorf("b has %+v, want block %v and the session", b, block)
	}
	w.check()
}

// TestStopInTheEmptiedDatabase_I6: a session that is reported again and stops
// in an emptied database, before the loss was noticed, is over.
func TestStopInTheEmptiedDatabase_I6(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	w.reconciling.Lock() // the loss stays unnoticed
	if err := w.client.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventInterim, alice, "a", "1")
	w.send(subscriber.EventStop, alice, "a", "1")
	w.send(subscriber.EventStop, bob, "b", "2")
	w.reconciling.Unlock()
	w.nothingLeft(alice)
	w.nothingLeft(bob)
	w.awaitState(alice, nat.Held)
}

// slowSettings delays the result of a read of the settings.
type slowSettings struct {
	Store
	armed   atomic.Bool
	read    chan struct{} // the read has its result
	proceed chan struct{}
}

func (s *slowSettings) Settings(ctx context.Context) (map[string]string, error) {
	text, err := s.Store.Settings(ctx)
	if s.armed.CompareAndSwap(true, false) {
		close(s.read)
		<-s.proceed
	}
	return text, err
}

// TestLateSettings: settings that were read before a change do not undo it, not
// even for a moment: switched on, the toggle cuts draining slots.
func TestLateSettings(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	slow := &slowSettings{read: make(chan struct{}), proceed: make(chan struct{})}
	w.store = func(db *subscriberdb.DB) Store { slow.Store = db; return slow }
	w.boot()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.flow(alice, 4000)

	slow.armed.Store(true)
	<-slow.read // says "on"
	changed := make(chan error, 1)
	go func() {
		s := inspect.Settings{Removal: inspect.RemovalOff}
		_, err := w.UpdateSettings(context.Background(), s, []string{inspect.SettingRemoval})
		changed <- err
	}()
	var err error
	select {
	case err = <-changed:
		close(slow.proceed)
	case <-time.After(100 * time.Millisecond): // the change waits for the read
		close(slow.proceed)
		err = <-changed
	}
	if err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Draining)
	if got, _ := w.Settings(context.Background()); got.Removal != inspect.RemovalOff {
		t.Error("an old read undid the change")
	}
}
