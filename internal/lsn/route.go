package lsn

import "github.com/sessiond/sessiond/internal/prefixtable"

// route leads from an outside address to its segment.
type route struct {
	segment *poolPrefix
	group   *group
}

// routesOf returns the routes to every segment. No two of them overlap.
func routesOf(groups []*group) (routes prefixtable.Table[route]) {
	for _, g := range groups {
		for i := range g.segments {
			s := &g.segments[i]
			routes.Put(s.prefix, route{s, g})
		}
	}
	return routes
}
