package subscriberdb

import (
	"net/netip"
	"sync"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// scratch is where the jobs of one call of Record lie. It is used again, for it
// is most of the memory that an event takes.
type scratch struct {
	jobs      []job
	sessions  map[subscriber.SessionID]int // the wave that may be next of each
	addresses map[netip.Addr]int
}

var workspaces = sync.Pool{New: func() any {
	return &scratch{sessions: make(map[subscriber.SessionID]int), addresses: make(map[netip.Addr]int)}
}}

// workspaceLimit is the number of jobs up to which a workspace is kept: nobody needs
// the memory of a flood for ever.
const workspaceLimit = 4096

// newWorkspace returns a workspace with so many empty jobs.
func newWorkspace(n int) *scratch {
	w := workspaces.Get().(*scratch)
	if cap(w.jobs) < n {
		w.jobs = make([]job, n)
	}
	w.jobs = w.jobs[:n]
	return w
}

// clear gives the workspace back. Nothing may hold on to its jobs.
func (w *scratch) clear() {
	if len(w.jobs) > workspaceLimit {
		return
	}
	clear(w.jobs)
	clear(w.sessions)
	clear(w.addresses)
	workspaces.Put(w)
}

// waves splits the jobs so that those of one wave do not depend on each other,
// and every job comes after the earlier ones that it depends on: events of one
// session or one address, and everything before and after a restart.
func (w *scratch) waves() [][]*job {
	var list [][]*job
	barrier := 0
	for i := range w.jobs {
		j := &w.jobs[i]
		inside := addressOf(&j.event)
		wave := max(barrier, w.sessions[j.event.SessionID], w.addresses[inside])
		if isRestart(&j.event) {
			wave = len(list)
			barrier = wave + 1
		}
		w.sessions[j.event.SessionID] = wave + 1
		if inside.IsValid() {
			w.addresses[inside] = wave + 1
		}
		if wave == len(list) {
			list = append(list, make([]*job, 0, len(w.jobs)-i))
		}
		list[wave] = append(list[wave], j)
	}
	return list
}
