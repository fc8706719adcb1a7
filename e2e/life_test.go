//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/labapi"
)

// Bounds of the contract, and of the lab's configuration.
const (
	bound    = time.Second      // Start answered to ACTIVE, record gone to nothing left
	holdOver = 15 * time.Second // the configured hold is 4 s
)

// report makes the BNG send an accounting request, by both paths.
//
//	report start|interim|stop USER
//	report on|off
func (s *scenario) report(args []string) error {
	const text = "report start|interim|stop USER, or report on|off"
	if err := usage(args, text, 1, 2); err != nil {
		return err
	}
	a := labapi.Account{Status: args[0]}
	if len(args) == 2 {
		h, err := s.user(args[1])
		if err != nil {
			return err
		}
		a.User, a.Address, a.Session = args[1], h.inside, s.sessionOf(args[1], args[0])
	}
	ctx, cancel := aMinute()
	defer cancel()
	if _, err := s.bng.Account(ctx, a); err != nil {
		return fmt.Errorf("%s is not acknowledged: %w", strings.Join(args, " "), err)
	}
	return nil
}

// sessionOf returns the Acct-Session-Id for a report: a new one where none is known, and none
// is known after a stop.
func (s *scenario) sessionOf(user, status string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.sessions[user]
	if id == "" {
		id = fmt.Sprintf("%s-%x", user, time.Now().UnixNano())
	}
	if s.sessions[user] = id; status == "stop" {
		delete(s.sessions, user)
	}
	return id
}

// online sends a Start, and waits for the subscriber's own block.
//
//	online USER
func (s *scenario) online(args []string) error {
	if err := usage(args, "online USER", 1); err != nil {
		return err
	}
	user := args[0]
	if err := s.report([]string{"start", user}); err != nil {
		return err
	}
	if err := s.state([]string{user, "ACTIVE"}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blocks[user]
	if !s.pool.Contains(b.OutsideAddress) || b.FirstPort%s.blockSize != 0 || b.LastPort-b.FirstPort != s.blockSize-1 {
		return fmt.Errorf("%s has no aligned block of the pool: %+v", user, b)
	}
	for other, o := range s.blocks {
		if other != user && s.sessions[other] != "" && o.OutsideAddress == b.OutsideAddress && o.FirstPort == b.FirstPort {
			return fmt.Errorf("%s and %s both have %+v", user, other, b)
		}
	}
	return nil
}

// state waits until the subscriber has one binding, in the state.
//
//	state USER ACTIVE|DRAINING|HELD [WITHIN]
func (s *scenario) state(args []string) error {
	if err := usage(args, "state USER ACTIVE|DRAINING|HELD [WITHIN]", 2, 3); err != nil {
		return err
	}
	h, err := s.user(args[0])
	if err != nil {
		return err
	}
	limit, err := within(args, 2, bound)
	if err != nil {
		return err
	}
	return eventually(limit, func() error {
		all, err := s.bindings(h.inside)
		if err != nil {
			return err
		}
		if len(all) != 1 || !all[0].is(args[1]) {
			return fmt.Errorf("bindings of %s are %+v, not one %s", args[0], all, args[1])
		}
		if args[1] == "ACTIVE" {
			s.mu.Lock()
			s.blocks[args[0]] = all[0]
			s.mu.Unlock()
		}
		return nil
	})
}

// sameBlock fails unless the subscriber is ACTIVE with the block that it had when that was
// last asked.
//
//	same-block USER [WITHIN]
func (s *scenario) sameBlock(args []string) error {
	if err := usage(args, "same-block USER [WITHIN]", 1, 2); err != nil {
		return err
	}
	s.mu.Lock()
	before := s.blocks[args[0]]
	s.mu.Unlock()
	if err := s.state(append([]string{args[0], "ACTIVE"}, args[1:]...)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.blocks[args[0]]; now.OutsideAddress != before.OutsideAddress || now.FirstPort != before.FirstPort {
		return fmt.Errorf("%s had %+v, and has %+v", args[0], before, now)
	}
	return nil
}

// gone waits until nothing of the subscriber is left: no entry of conntrack, no element of
// nftables, no record; its block is HELD, or free again.
//
//	gone USER [WITHIN]
func (s *scenario) gone(args []string) error {
	if err := usage(args, "gone USER [WITHIN]", 1, 2); err != nil {
		return err
	}
	h, err := s.user(args[0])
	if err != nil {
		return err
	}
	limit, err := within(args, 1, bound)
	if err != nil {
		return err
	}
	err = eventually(limit, func() error {
		found, err := s.traces(h.inside)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("of %s there is %q", args[0], found)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = eventually(bound, func() error { // HELD, or free already
		all, err := s.bindings(h.inside)
		if err == nil && slices.ContainsFunc(all, func(b binding) bool { return !b.is("HELD") }) {
			err = fmt.Errorf("bindings of %s: %+v", args[0], all)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.sessions, args[0])
	s.mu.Unlock()
	return s.checkRecord(args[0], "")
}

// free waits until the subscriber has no binding any more.
//
//	free USER [WITHIN]
func (s *scenario) free(args []string) error {
	if err := usage(args, "free USER [WITHIN]", 1, 2); err != nil {
		return err
	}
	h, err := s.user(args[0])
	if err != nil {
		return err
	}
	limit, err := within(args, 1, holdOver)
	if err != nil {
		return err
	}
	return eventually(limit, func() error {
		all, err := s.bindings(h.inside)
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("bindings of %s: %+v", args[0], all)
		}
		return err
	})
}

// record waits until Redis has the subscriber's record, under its User-Name.
//
//	record USER [WITHIN]
func (s *scenario) record(args []string) error {
	if err := usage(args, "record USER [WITHIN]", 1, 2); err != nil {
		return err
	}
	limit, err := within(args, 1, bound)
	if err != nil {
		return err
	}
	return eventually(limit, func() error { return s.checkRecord(args[0], args[0]) })
}

func (s *scenario) checkRecord(user, want string) error {
	h, err := s.user(user)
	if err != nil {
		return err
	}
	got, err := redisCLI("HGET", "sessiond:{default}:sub:"+h.inside.String(), "user_name")
	if err == nil && got != want {
		err = fmt.Errorf("record of %s: User-Name %q, want %q", user, got, want)
	}
	return err
}

// redis runs redis-cli.
//
//	redis COMMAND [ARGUMENT ...]
func (s *scenario) redis(args []string) error {
	out, err := redisCLI(args...)
	fmt.Fprintln(s.ts.Stdout(), out)
	return err
}

// sessionctl runs sessionctl where the operators sit.
//
//	sessionctl ARGUMENT ...
func (s *scenario) sessionctl(args []string) error {
	out, err := ctl(args...)
	fmt.Fprintln(s.ts.Stdout(), out)
	return err
}
