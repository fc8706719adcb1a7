package ownership

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

const (
	// Lease is the duration of a lease without renewal; after it another node may
	// serve the group.
	Lease = 10 * time.Second
	// RenewEvery is the interval of renewals.
	RenewEvery = time.Second
	// lookEvery is the interval of looks at another owner's lease.
	lookEvery = 500 * time.Millisecond
	// askWithin bounds one request to the database.
	askWithin = 2 * time.Second
)

// ErrOwned: another daemon serves the group and renews its lease.
var ErrOwned = errors.New("another sessiond serves it")

// Store keeps the leases. *subscriberdb.DB implements it.
type Store interface {
	// Owner returns the owner of a group's lease, "" for none, and its remaining
	// time; negative: no end.
	Owner(ctx context.Context, group string) (line string, left time.Duration, err error)
	// SetOwner replaces the owner was by now, for ttl, and reports whether was
	// still was the owner. "" means no owner.
	SetOwner(ctx context.Context, group, was, now string, ttl time.Duration) (bool, error)
}

// Options are the parameters of New. All fields are required but those marked
// optional.
type Options struct {
	Store     Store
	Node      string // name of this daemon's machine, for people
	Namespace string // optional: the network namespace of the daemon, as in nat.netns
	Logger    *slog.Logger
}

// A Claimant takes and renews the leases of the groups that one daemon serves.
// Its methods may be called concurrently.
type Claimant struct {
	store     Store
	namespace string
	log       *slog.Logger
	self      owner
	line      string // self in the database's form
	sign      *name  // a name in the namespace that exists as long as this process

	asking chan struct{} // has room for one: serialises requests to the database; locked before mu

	mu     sync.Mutex
	until  map[string]time.Time // of each group taken: earliest end of the lease
	doubts map[string]look      // of groups taken: the lease of another owner, if one was seen
}

// owner identifies the owner of a lease.
type owner struct {
	Node     string    `json:"node"`
	Instance string    `json:"instance"` // different for each start
	Place    string    `json:"place,omitempty"`
	Since    time.Time `json:"since"`
}

// look is a lease at one moment.
type look struct {
	line string
	left time.Duration
}

// aliveSince reports whether the lease was renewed since an earlier look:
// without renewal its remaining time only shrinks.
func (l look) aliveSince(before look) bool {
	return l.line == before.line && l.left > before.left
}

// New returns a Claimant, and makes this process's name in the namespace.
func New(o Options) (*Claimant, error) {
	switch {
	case o.Store == nil, o.Logger == nil:
		return nil, errors.New("ownership: Store and Logger are required")
	case o.Node == "":
		return nil, errors.New("ownership: Node is required")
	}
	self := owner{Node: o.Node, Instance: rand.Text(), Place: place(o.Namespace), Since: time.Now().UTC().Truncate(time.Second)}
	line, err := json.Marshal(self)
	if err != nil {
		return nil, fmt.Errorf("ownership: %w", err)
	}
	sign, err := bindNameIn(o.Namespace, signOf(self.Instance))
	if err != nil {
		return nil, fmt.Errorf("ownership: %w", err)
	}
	return &Claimant{
		store: o.Store, namespace: o.Namespace, log: o.Logger, self: self, line: string(line), sign: sign,
		asking: make(chan struct{}, 1),
		until:  map[string]time.Time{}, doubts: map[string]look{},
	}, nil
}

func signOf(instance string) string { return "sessiond/instance/" + instance }

// Claim takes the lease of a group. If another owner has it, Claim waits until it
// runs out, or returns ErrOwned once it is renewed. The lease of a process that
// is known to be dead is taken at once.
func (c *Claimant) Claim(ctx context.Context, group string) error {
	for before := (look{}); ; {
		taken, seen, err := c.try(ctx, group)
		switch {
		case err != nil:
			return err
		case taken:
			return nil
		case seen.left < 0, seen.aliveSince(before):
			return refusal(group, seen)
		case seen.line != before.line:
			c.log.Info("waiting for a group that another sessiond has or had", "group", group, "owner", seen.line, "lease", seen.left)
		}
		before = seen
		if err := clock.Sleep(ctx, lookEvery); err != nil {
			return err
		}
	}
}

func refusal(group string, seen look) error {
	var o owner
	_ = json.Unmarshal([]byte(seen.line), &o) // it may be text written by hand
	who := fmt.Sprintf("node %q (instance %s, since %s)", o.Node, o.Instance, o.Since.Format(time.RFC3339))
	if o.Node == "" {
		who = fmt.Sprintf("%q", seen.line)
	}
	until := fmt.Sprintf("its lease in Redis lasts until %s and is renewed", time.Now().Add(seen.left).UTC().Format(time.RFC3339))
	if seen.left < 0 {
		until = "its lease in Redis has no end"
	}
	return fmt.Errorf("group %s: %w: %s; %s. Stop that one: a group's NAT is on one node. Then start this one; %v after the other's death it may serve the group", group, ErrOwned, who, until, Lease)
}

// ask waits for its turn to ask the database, no longer than ctx: with a Redis that hangs each
// turn takes askWithin, and many may wait. After it, asked ends the turn.
func (c *Claimant) ask(ctx context.Context) error {
	select {
	case c.asking <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the database is being asked about other leases: %w", ctx.Err())
	}
}

func (c *Claimant) asked() { <-c.asking }

// try takes the lease if it is free, ours, or of a dead process. Otherwise it
// returns the present lease.
func (c *Claimant) try(ctx context.Context, group string) (taken bool, seen look, err error) {
	if err := c.ask(ctx); err != nil {
		return false, look{}, err
	}
	defer c.asked()
	return c.tryAsking(ctx, group)
}

func (c *Claimant) tryAsking(ctx context.Context, group string) (taken bool, seen look, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	for {
		line, left, err := c.store.Owner(ctx, group)
		if err != nil {
			return false, look{}, err
		}
		if line != "" && line != c.line && !c.dead(line) {
			return false, look{line, left}, nil
		}
		if taken, err := c.set(ctx, group, line); taken || err != nil {
			return taken, look{}, err
		}
	}
}

// set replaces the owner was by this daemon.
func (c *Claimant) set(ctx context.Context, group, was string) (bool, error) {
	began := time.Now()
	ok, err := c.store.SetOwner(ctx, group, was, c.line, Lease)
	if !ok || err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until[group] = began.Add(Lease)
	delete(c.doubts, group)
	return true, nil
}

// dead reports whether the owner is known to be dead: it had the namespace of this daemon, and
// no process has its name there. The place identifies one boot of one machine, so the name
// would be in this namespace. A stranger can take it only after the owner's end.
func (c *Claimant) dead(line string) bool {
	var o owner
	if json.Unmarshal([]byte(line), &o) != nil || o.Instance == "" || o.Place == "" || o.Place != c.self.Place {
		return false
	}
	taken, err := whoHas(c.namespace, signOf(o.Instance))
	return err == nil && (taken == nil || taken.stranger())
}

// Renew renews the leases of all groups taken, and takes those again that have
// no owner any more, as after a loss of the database. ErrOwned means that a
// live daemon took a group: this daemon must change nothing more. Any other
// error says nothing about ownership.
func (c *Claimant) Renew(ctx context.Context) error {
	var errs []error
	for _, group := range c.groups() {
		errs = append(errs, c.renew(ctx, group))
	}
	return errors.Join(errs...)
}

func (c *Claimant) has(group string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ours := c.until[group]
	return ours
}

func (c *Claimant) groups() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.until))
}

func (c *Claimant) renew(ctx context.Context, group string) error {
	if err := c.ask(ctx); err != nil {
		return err
	}
	defer c.asked()
	if !c.has(group) {
		return nil // given up meanwhile
	}
	taken, seen, err := c.tryAsking(ctx, group)
	if taken || err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.doubts[group]
	c.doubts[group], c.until[group] = seen, time.Time{}
	if seen.aliveSince(before) {
		return refusal(group, seen)
	}
	if before.line != seen.line {
		c.log.Warn("the lease of a group is another sessiond's: nothing is stored until that one runs out, or shows that it is alive",
			"group", group, "owner", seen.line)
	}
	return nil
}

// Holds reports whether the group's lease is certainly ours.
func (c *Claimant) Holds(group string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.until[group])
}

// Leave gives up the lease of a group. If ctx ends before the database can be asked, nothing
// changes.
func (c *Claimant) Leave(ctx context.Context, group string) error {
	if err := c.ask(ctx); err != nil {
		return err
	}
	defer c.asked()
	c.mu.Lock()
	_, ours := c.until[group]
	delete(c.until, group)
	delete(c.doubts, group)
	c.mu.Unlock()
	if !ours {
		return nil
	}
	_, err := c.store.SetOwner(ctx, group, c.line, "", 0)
	return err
}

// LeaveAll gives up all leases, so that the next daemon need not wait.
func (c *Claimant) LeaveAll(ctx context.Context) error {
	var errs []error
	for _, group := range c.groups() {
		errs = append(errs, c.Leave(ctx, group))
	}
	return errors.Join(errs...)
}

// Close gives up this process's name in the namespace. Leases that were not
// given up run out.
func (c *Claimant) Close() error { return c.sign.close() }
