package lsn

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"
)

// route leads from an outside address to its segment.
type route struct {
	segment *poolPrefix
	group   *group
}

// routesOf returns the routes to every segment, by address.
func routesOf(groups []*group) []route {
	var routes []route
	for _, g := range groups {
		for i := range g.segments {
			routes = append(routes, route{&g.segments[i], g})
		}
	}
	slices.SortFunc(routes, func(a, b route) int { return cmp.Compare(a.segment.low, b.segment.low) })
	return routes
}

// route returns the only route that may lead to an outside address, or nil.
func (e *Engine) route(outside netip.Addr) *route {
	if !outside.Is4() {
		return nil
	}
	n := number(outside)
	i := sort.Search(len(e.routes), func(i int) bool { return e.routes[i].segment.low > n })
	if i == 0 {
		return nil
	}
	return &e.routes[i-1]
}
