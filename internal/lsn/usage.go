package lsn

import "time"

// Usage returns the counts of every outside prefix, by group name and then in
// configured order. A prefix that is no longer configured is listed while it
// has bindings, with these as its total.
func (e *Engine) Usage() []Usage {
	var all []Usage
	for _, g := range e.groups {
		for i := range g.segments {
			s := &g.segments[i]
			if s.retired && s.used+s.held == 0 {
				continue
			}
			held, free := g.heldAndFree(s)
			all = append(all, Usage{
				Group: g.config.Name, Outside: s.prefix,
				Total: s.used + held + free, Used: s.used, Held: held, Free: free,
				Draining: s.retired,
			})
		}
	}
	return all
}

// Quarantined returns the number of the group's blocks that Quarantine holds, and their
// end.
func (e *Engine) Quarantined(group string) (blocks int, until time.Time) {
	g := e.group(group)
	if g == nil || !g.embargoed {
		return 0, time.Time{}
	}
	for i := range g.segments {
		held, _ := g.heldAndFree(&g.segments[i])
		blocks += held - g.segments[i].held
	}
	return blocks, g.embargoUntil
}

// heldAndFree counts the segment's unused blocks: those in a hold or in quarantine, and the
// free ones.
func (g *group) heldAndFree(s *poolPrefix) (held, free int) {
	rest := int(s.cells(&g.shape)) - s.used - s.held
	switch {
	case s.retired:
		return s.held, 0
	case g.embargoed:
		return s.held + rest - s.idle, s.idle
	}
	return s.held, rest
}
