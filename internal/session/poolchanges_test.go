package session

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

func changed(words ...string) (changes poolChanges) {
	for i := 0; i < len(words); i += 2 {
		changes = append(changes, subscriberdb.PoolChange{Kind: subscriberdb.PoolKind(words[i]), Prefix: netip.MustParsePrefix(words[i+1])})
	}
	return changes.inOrder()
}

func (pc poolChanges) text() string {
	var words []string
	for _, c := range pc {
		words = append(words, string(c.Kind)+" "+c.Prefix.String())
	}
	return fmt.Sprint(words)
}

// TestPoolChangesOver_NAT27: what was changed at run time lies over the configuration.
func TestPoolChangesOver_NAT27(t *testing.T) {
	for name, c := range map[string]struct {
		changes           poolChanges
		outside, draining []netip.Prefix
		outsideIs, drains string
	}{
		"nothing":                         {nil, prefixes("198.51.100.0/28"), prefixes("203.0.113.0/28"), "[198.51.100.0/28]", "[203.0.113.0/28]"},
		"added":                           {changed("added", "192.0.2.0/31"), prefixes("198.51.100.0/28"), nil, "[198.51.100.0/28 192.0.2.0/31]", "[]"},
		"added and in the configuration":  {changed("added", "198.51.100.0/27"), prefixes("198.51.100.0/28"), nil, "[198.51.100.0/28 198.51.100.16/28]", "[]"},
		"added, now of another group":     {changed("added", "10.9.0.0/30"), prefixes("198.51.100.0/28"), nil, "[198.51.100.0/28]", "[]"},
		"draining":                        {changed("draining", "198.51.100.0/28"), prefixes("198.51.100.0/28"), nil, "[]", "[198.51.100.0/28]"},
		"a part drains":                   {changed("draining", "198.51.100.1/32"), prefixes("198.51.100.0/30"), nil, "[198.51.100.0/32 198.51.100.2/31]", "[198.51.100.1/32]"},
		"added and drains":                {changed("added", "192.0.2.0/31", "draining", "192.0.2.0/31"), prefixes("198.51.100.0/28"), nil, "[198.51.100.0/28]", "[192.0.2.0/31]"},
		"drains twice":                    {changed("draining", "198.51.100.0/30"), prefixes("198.51.100.0/31"), prefixes("198.51.100.2/31"), "[]", "[198.51.100.2/31 198.51.100.0/31]"},
		"removed":                         {changed("removed", "198.51.100.0/28"), prefixes("198.51.100.0/28", "192.0.2.0/31"), nil, "[192.0.2.0/31]", "[]"},
		"a part is cut":                   {changed("cut", "203.0.113.8/29"), prefixes("198.51.100.0/28"), prefixes("203.0.113.0/28"), "[198.51.100.0/28]", "[203.0.113.0/29]"},
		"drains, not configured any more": {changed("draining", "192.0.2.0/31"), prefixes("198.51.100.0/28"), nil, "[198.51.100.0/28]", "[]"},
	} {
		file := []lsn.GroupConfig{{Name: "a", Outside: c.outside, Draining: c.draining}, {Name: "b", Outside: prefixes("10.9.0.0/24")}}
		got := combined(file, map[string]poolChanges{"a": c.changes})
		slices.SortFunc(got[0].Draining, func(a, b netip.Prefix) int { return -a.Compare(b) })
		if outside, drains := fmt.Sprint(got[0].Outside), fmt.Sprint(got[0].Draining); outside != c.outsideIs || drains != c.drains {
			t.Errorf("%s: %s, draining %s; want %s, %s", name, outside, drains, c.outsideIs, c.drains)
		}
		if got[0].Name != "a" || len(got[1].Outside) != 1 {
			t.Errorf("%s: groups %+v", name, got)
		}
	}
}

// TestPoolChangesPruned_NAT27: a later configuration that says the same, or lacks the prefix,
// ends a change; a removed prefix is remembered as long as its blocks are in use.
func TestPoolChangesPruned_NAT27(t *testing.T) {
	for name, c := range map[string]struct {
		changes           poolChanges
		outside, draining []netip.Prefix
		used              []netip.Prefix
		want              string
	}{
		"added, configured now":      {changed("added", "198.51.100.0/28"), prefixes("198.51.100.0/28"), nil, nil, "[]"},
		"added, a half configured":   {changed("added", "198.51.100.0/28"), prefixes("198.51.100.0/29"), nil, nil, "[added 198.51.100.8/29]"},
		"added, drains there":        {changed("added", "198.51.100.0/28"), nil, prefixes("198.51.100.0/28"), nil, "[]"},
		"draining":                   {changed("draining", "198.51.100.0/28"), prefixes("198.51.100.0/28"), nil, nil, "[draining 198.51.100.0/28]"},
		"draining there too":         {changed("draining", "198.51.100.0/28"), nil, prefixes("198.51.100.0/28"), nil, "[]"},
		"draining, not configured":   {changed("draining", "198.51.100.0/28"), prefixes("192.0.2.0/24"), nil, prefixes("198.51.100.0/28"), "[]"},
		"added and draining":         {changed("added", "203.0.113.0/31", "draining", "203.0.113.1/32"), nil, nil, nil, "[added 203.0.113.0/31 draining 203.0.113.1/32]"},
		"removed":                    {changed("removed", "198.51.100.0/28"), prefixes("198.51.100.0/28"), nil, nil, "[removed 198.51.100.0/28]"},
		"removed, not configured":    {changed("removed", "198.51.100.0/28"), nil, nil, nil, "[]"},
		"cut, in use":                {changed("cut", "198.51.100.0/28"), nil, nil, prefixes("198.51.100.4/30"), "[cut 198.51.100.4/30]"},
		"cut, configured and in use": {changed("cut", "198.51.100.0/28"), prefixes("198.51.100.0/28"), nil, prefixes("198.51.100.0/28"), "[cut 198.51.100.0/28]"},
	} {
		file := []lsn.GroupConfig{{Name: "a", Outside: c.outside, Draining: c.draining}}
		if got := c.changes.pruned(file, &file[0], c.used).text(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestPoolOrders_NAT27: each order replaces the earlier ones about the same addresses.
func TestPoolOrders_NAT27(t *testing.T) {
	at := time.Unix(1_772_359_200, 0)
	file := []lsn.GroupConfig{{Name: "a", Outside: prefixes("198.51.100.0/30")}}
	c, part, whole, more := &file[0], netip.MustParsePrefix("198.51.100.0/31"), netip.MustParsePrefix("198.51.100.0/30"), netip.MustParsePrefix("198.51.100.0/29")
	var changes poolChanges
	for i, step := range []struct {
		do   func() poolChanges
		want string
	}{
		{func() poolChanges { return changes.drain(c, part, at) }, "[draining 198.51.100.0/31]"},
		{func() poolChanges { return changes.drain(c, part, at.Add(1)) }, "[draining 198.51.100.0/31]"},
		{func() poolChanges { return changes.add(file, c, part, at) }, "[]"},
		{func() poolChanges { return changes.add(file, c, more, at) }, "[added 198.51.100.4/30]"},
		{func() poolChanges { return changes.drain(c, more, at) }, "[draining 198.51.100.0/29 added 198.51.100.4/30]"},
		{func() poolChanges { return changes.remove(whole, false, at) }, "[removed 198.51.100.0/30 added 198.51.100.4/30 draining 198.51.100.4/30]"},
		{func() poolChanges { return changes.add(file, c, part, at) }, "[removed 198.51.100.2/31 added 198.51.100.4/30 draining 198.51.100.4/30]"},
		{func() poolChanges { return changes.remove(more, true, at) }, "[cut 198.51.100.0/29]"},
		{func() poolChanges { return changes.add(file, c, more, at) }, "[added 198.51.100.4/30]"},
	} {
		changes = step.do()
		if got := changes.text(); got != step.want {
			t.Fatalf("step %d: %s, want %s", i, got, step.want)
		}
	}
}
