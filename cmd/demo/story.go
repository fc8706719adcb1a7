package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// holdTime is the quarantine of the demo; in production it is two minutes.
const holdTime = 3 * time.Second

var (
	alice = rig.Session{ID: "alice-1", User: "alice", Inside: netip.MustParseAddr("100.64.0.10")}
	bob   = rig.Session{ID: "bob-1", User: "bob", Inside: netip.MustParseAddr("100.64.0.11")}
)

// play runs all parts and fails at the first step that fails.
func play(ctx context.Context, s *stage) error {
	bobs, err := before(ctx, s)
	if err != nil {
		return err
	}
	for _, end := range []ending{
		{"The BNG sends Accounting-Stop for alice", func(ctx context.Context) error { return s.Offline(ctx, alice) }},
		{"An operator deletes alice: sessionctl subscriber delete " + alice.Inside.String(), s.deleteByOperator},
		{"Somebody deletes alice's record in Redis: redis-cli DEL", s.deleteInRedis},
	} {
		if err := removed(ctx, s, end, bobs); err != nil {
			return err
		}
	}
	return drained(ctx, s, bobs)
}

// before brings bob, the neighbour, online and shows that alice, who is
// offline, reaches nothing.
func before(ctx context.Context, s *stage) (*netlab.Flow, error) {
	s.chapter("Before the Start: nothing of a subscriber who is not online gets out")
	s.does("alice (%s) pings the internet without being online", alice.Inside)
	if err := s.closed(ctx, alice); err != nil {
		return nil, err
	}
	s.does("The BNG sends Accounting-Start for bob, the neighbour; he opens a TCP flow that stays open to the end")
	if err := s.start(ctx, bob); err != nil {
		return nil, err
	}
	return s.open(ctx, bob)
}

// An ending is one way to end a subscriber record.
type ending struct {
	what string
	do   func(ctx context.Context) error
}

// removed shows the main job: online, traffic, the end of the record, no state
// left.
func removed(ctx context.Context, s *stage, end ending, bobs *netlab.Flow) error {
	s.chapter(end.what + ": her NAT sessions are removed and her port block is freed")
	s.does("The BNG sends Accounting-Start for alice")
	if err := s.start(ctx, alice); err != nil {
		return err
	}
	s.does("alice's TCP, UDP and ping reach an internet host")
	if err := s.traffic(ctx, alice); err != nil {
		return err
	}
	flow, err := s.open(ctx, alice)
	if err != nil {
		return err
	}
	if err := s.showKernel(ctx, alice); err != nil {
		return err
	}
	s.does("%s", end.what)
	began := time.Now()
	if err := end.do(ctx); err != nil {
		return err
	}
	if err := s.nothingLeft(ctx, alice, began); err != nil {
		return err
	}
	if err := s.dead(flow, alice); err != nil {
		return err
	}
	if err := s.lives(bobs, bob); err != nil {
		return err
	}
	return s.heldThenFree(ctx, alice)
}

// drained shows the same with the removal toggle off.
func drained(ctx context.Context, s *stage, bobs *netlab.Flow) error {
	s.chapter("With the toggle off: the flow lives on, nothing new opens, the block comes free when the last session ends")
	s.does("sessionctl settings set subscriber_session_removal=off")
	if _, err := s.Daemon.Ctl(ctx, "settings", "set", "subscriber_session_removal=off"); err != nil {
		return err
	}
	if err := s.start(ctx, alice); err != nil {
		return err
	}
	flow, err := s.open(ctx, alice)
	if err != nil {
		return err
	}
	s.does("The BNG sends Accounting-Stop for alice")
	if err := s.Offline(ctx, alice); err != nil {
		return err
	}
	if _, err := s.AwaitState(ctx, alice.Inside, "DRAINING"); err != nil {
		return err
	}
	s.seen("her binding is DRAINING")
	if err := s.lives(flow, alice); err != nil {
		return err
	}
	if err := s.closed(ctx, alice); err != nil {
		return err
	}
	s.does("alice's last session ends (its idle timeout is cut short here with the conntrack command)")
	if err := flow.Close(); err != nil {
		return err
	}
	if _, err := s.Lab.CGN.Output(ctx, "conntrack", "-D", "-s", alice.Inside.String()); err != nil {
		return err
	}
	if err := s.nothingLeft(ctx, alice, time.Now()); err != nil {
		return err
	}
	if err := s.heldThenFree(ctx, alice); err != nil {
		return err
	}
	return s.lives(bobs, bob)
}
