package lsn

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
			})
		}
	}
	return all
}

// heldAndFree counts the segment's blocks that nobody uses: those in a hold or
// in quarantine, and those to be given.
func (g *group) heldAndFree(s *segment) (held, free int) {
	rest := int(s.cells(&g.shape)) - s.used - s.held
	switch {
	case s.retired:
		return s.held, 0
	case g.embargoed:
		return s.held + rest - s.idle, s.idle
	}
	return s.held, rest
}
