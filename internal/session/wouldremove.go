package session

import "github.com/sessiond/sessiond/internal/inspect"

// observedMost is the number of observed removals that are kept.
const observedMost = 10_000

// wouldRemove keeps the newest removals that RemovalOn would have carried out.
type wouldRemove struct {
	ring []inspect.Removal
	next int // the oldest, once the ring is full
}

func (o *wouldRemove) add(r inspect.Removal) {
	if len(o.ring) < observedMost {
		o.ring = append(o.ring, r)
		return
	}
	o.ring[o.next] = r
	o.next = (o.next + 1) % observedMost
}

// observedRLocked adds the observed removals. An address may have several.
func (v *Backend) observedRLocked(p *removalPage) {
	if !p.wants(inspect.RemovalObserved) {
		return
	}
	first := topN[*inspect.Removal]{limit: p.limit + 1, compare: func(a, b *inspect.Removal) int {
		return a.Key().Compare(b.Key())
	}}
	for i := range v.reports.observed.ring {
		if r := &v.reports.observed.ring[i]; p.filter.Match(r) && r.Key().Compare(p.after) > 0 {
			first.add(r)
		}
	}
	for _, r := range first.kept {
		p.add(*r)
	}
	if n := len(first.kept); n > p.limit {
		p.endAt(first.kept[n-1].Key())
	}
}
