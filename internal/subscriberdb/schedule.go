package subscriberdb

import (
	"net/netip"
	"sync"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// scratch holds the jobs of one call of Record. It is pooled, because the jobs are most of
// the memory that an event takes.
type scratch struct {
	jobs      []job
	sessions  map[subscriber.SessionID]int // the earliest wave for the session's next event
	addresses map[netip.Addr]int
}

var workspaces = sync.Pool{New: func() any {
	return &scratch{sessions: make(map[subscriber.SessionID]int), addresses: make(map[netip.Addr]int)}
}}

// workspaceLimit is the largest number of jobs with which a workspace is pooled, so that a
// flood of events does not occupy its memory for ever.
const workspaceLimit = 4096

// newWorkspace returns a workspace with n empty jobs.
func newWorkspace(n int) *scratch {
	w := workspaces.Get().(*scratch)
	if cap(w.jobs) < n {
		w.jobs = make([]job, n)
	}
	w.jobs = w.jobs[:n]
	return w
}

// clear returns the workspace to the pool. Its jobs must not be used afterwards.
func (w *scratch) clear() {
	if len(w.jobs) > workspaceLimit {
		return
	}
	clear(w.jobs)
	clear(w.sessions)
	clear(w.addresses)
	workspaces.Put(w)
}

// waves splits the jobs so that those of one wave do not depend on each other, and every
// job comes after the earlier ones that it depends on: those of the same session or
// address, and restarts, which depend on all others.
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
