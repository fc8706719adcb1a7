package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// pollEvery is the interval at which until checks its condition. The conditions
// are observed from outside, without notifications.
const pollEvery = 5 * time.Millisecond

// until waits until the condition holds or ctx ends.
func until(ctx context.Context, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w %s", errNotYet, what)
		case <-tick.C:
		}
	}
}

// Until waits until the condition holds or ctx ends.
func (r *Rig) Until(ctx context.Context, what string, holds func() (bool, error)) error {
	return until(ctx, what, holds)
}

// A Binding is one line of `sessionctl -o json binding list`.
type Binding struct {
	InsideAddress  string `json:"inside_address"`
	OutsideAddress string `json:"outside_address"`
	FirstPort      uint16 `json:"first_port"`
	LastPort       uint16 `json:"last_port"`
	Blocks         Blocks `json:"blocks"`
	State          string `json:"state"`
	UserName       string `json:"user_name"`
}

// Blocks is the JSON list of a Binding's blocks, which can be compared.
type Blocks string

// UnmarshalJSON implements json.Unmarshaler.
func (b *Blocks) UnmarshalJSON(text []byte) error {
	*b = Blocks(text)
	return nil
}

// Covers reports whether the address and port are the binding's own: of any of its blocks.
func (b *Binding) Covers(a netip.AddrPort) bool {
	var blocks []struct {
		First uint16 `json:"first_port"`
		Last  uint16 `json:"last_port"`
	}
	if a.Addr().String() != b.OutsideAddress || json.Unmarshal([]byte(b.Blocks), &blocks) != nil {
		return false
	}
	for _, p := range blocks {
		if p.First <= a.Port() && a.Port() <= p.Last {
			return true
		}
	}
	return false
}

// Bindings asks sessionctl for the bindings of one inside address.
func (r *Rig) Bindings(ctx context.Context, inside netip.Addr) ([]Binding, error) {
	out, err := r.Daemon.Ctl(ctx, "-o", "json", "binding", "list", "--inside", inside.String())
	if err != nil {
		return nil, err
	}
	var bindings []Binding
	for line := range strings.Lines(out) {
		var b Binding
		if err := json.Unmarshal([]byte(line), &b); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		b.State = strings.TrimPrefix(b.State, "BINDING_STATE_")
		bindings = append(bindings, b)
	}
	return bindings, nil
}

// AwaitState waits until the inside address has a binding in that state.
func (r *Rig) AwaitState(ctx context.Context, inside netip.Addr, state string) (found Binding, err error) {
	err = until(ctx, fmt.Sprintf("a binding of %s to be %s", inside, state), func() (bool, error) {
		bindings, err := r.Bindings(ctx, inside)
		for _, b := range bindings {
			if b.State == state {
				found = b
				return true, nil
			}
		}
		return false, err
	})
	return found, err
}

// A Trace is the kernel state of one inside address.
type Trace struct {
	Conntrack []string // entries with the address in either tuple
	Elements  []string // names of maps and sets with an element that names it
}

// Empty reports whether the kernel holds nothing.
func (t *Trace) Empty() bool { return len(t.Conntrack) == 0 && len(t.Elements) == 0 }

// Trace reads the kernel state of an address with conntrack and nft.
func (r *Rig) Trace(ctx context.Context, inside netip.Addr) (Trace, error) {
	var t Trace
	var err error
	if t.Conntrack, err = r.Lab.CGN.Conntrack(ctx, inside); err != nil {
		return t, err
	}
	ruleset, err := r.Lab.CGN.NftJSON(ctx)
	if err != nil {
		return t, err
	}
	t.Elements, err = naming(ruleset, inside)
	return t, err
}

// AwaitNothing waits until the kernel holds nothing of the address.
func (r *Rig) AwaitNothing(ctx context.Context, inside netip.Addr) error {
	var last Trace
	err := until(ctx, "nothing to be left of "+inside.String(), func() (bool, error) {
		var err error
		last, err = r.Trace(ctx, inside)
		return last.Empty(), err
	})
	if err != nil {
		return fmt.Errorf("%w: %+v", err, last)
	}
	return nil
}

// naming returns the sets and maps of `nft -j list ruleset` that have an
// element with exactly that address.
func naming(ruleset []byte, inside netip.Addr) ([]string, error) {
	type set struct {
		Name string            `json:"name"`
		Elem []json.RawMessage `json:"elem"`
	}
	var listing struct {
		Nftables []struct {
			Set *set `json:"set"`
			Map *set `json:"map"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(ruleset, &listing); err != nil {
		return nil, fmt.Errorf("nft -j list ruleset: %w", err)
	}
	var names []string
	quoted := `"` + inside.String() + `"`
	for _, object := range listing.Nftables {
		for _, s := range []*set{object.Set, object.Map} {
			if s == nil {
				continue
			}
			for _, e := range s.Elem {
				if strings.Contains(string(e), quoted) {
					names = append(names, s.Name)
				}
			}
		}
	}
	return names, nil
}
