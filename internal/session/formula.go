package session

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/lsn"
)

// formulaEvery is the interval at which the formulas in force are logged again, so that a
// log of any day shows them (RFC 7422 section 4).
const formulaEvery = 24 * time.Hour

// formulaOf returns the parameters of a group's formula as text, or "dynamic". Whoever has
// them can find each inside address and block by `sessiond --deterministic`.
func formulaOf(c *lsn.GroupConfig) string {
	if !c.Deterministic {
		return "dynamic"
	}
	list := func(prefixes []netip.Prefix) string {
		var texts []string
		for _, p := range prefixes {
			texts = append(texts, p.String())
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	return fmt.Sprintf("inside: %s, outside: %s, port_range: %d-%d, block_size: %d",
		list(c.Inside), list(c.Outside), c.FirstPort, c.LastPort, c.BlockSize)
}

// tellFormulas logs the formula of every group in deterministic mode.
func (sg *servedGroups) tellFormulas(configs []lsn.GroupConfig) {
	for i := range configs {
		if c := &configs[i]; c.Deterministic {
			sg.log.Info("deterministic mapping in force", "group", c.Name, "formula", formulaOf(c))
		}
	}
}

// tellChangedLocked logs the formulas, before and now, of groups in which they changed. The
// engine has the present ones.
func (sg *servedGroups) tellChangedLocked(before, now []lsn.GroupConfig) {
	formulas := func(configs []lsn.GroupConfig, name string) string {
		i := slices.IndexFunc(configs, func(c lsn.GroupConfig) bool { return c.Name == name })
		if i < 0 {
			return "none"
		}
		return formulaOf(&configs[i])
	}
	told := map[string]bool{}
	for _, c := range slices.Concat(before, now) {
		was, is := formulas(before, c.Name), formulas(now, c.Name)
		other := strings.Contains(was+is, "inside") && was != is
		if !other || told[c.Name] {
			continue
		}
		told[c.Name] = true
		sg.log.Info("deterministic mapping changed: bindings that do not have the block of the formula keep theirs until they end",
			"group", c.Name, "earlier", was, "formula", is, "bindings", sg.life.Engine().Elsewhere(c.Name))
	}
}
