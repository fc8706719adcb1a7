package subscriberdb

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// waves splits jobs so that those of one wave do not depend on each other, and
// every job comes after the earlier ones that it depends on: events of one
// session or one address, and everything before and after a restart.
func waves(jobs []job) [][]*job {
	sessions := make(map[subscriber.SessionID]int, len(jobs))
	addresses := make(map[netip.Addr]int, len(jobs))
	var list [][]*job
	barrier := 0
	for i := range jobs {
		j := &jobs[i]
		inside := addressOf(&j.event)
		wave := max(barrier, sessions[j.event.SessionID], addresses[inside])
		if isRestart(&j.event) {
			wave = len(list)
			barrier = wave + 1
		}
		sessions[j.event.SessionID] = wave + 1
		if inside.IsValid() {
			addresses[inside] = wave + 1
		}
		if wave == len(list) {
			list = append(list, nil)
		}
		list[wave] = append(list[wave], j)
	}
	return list
}
