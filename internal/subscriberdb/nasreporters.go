package subscriberdb

import (
	"sync"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// nasReporters are the clients that report the sessions of NASes.
type nasReporters struct {
	mu    sync.Mutex
	byNAS map[string]reporter
}

// reporter is who reports the sessions of a NAS.
type reporter struct {
	client  string
	several bool // others do too
}

// maxReporters bounds the NASes of one client that are known, where it is alone; see quota.Shares.
const maxReporters = 65_536

// reported notes that a client reports sessions of a NAS.
func (n *nasReporters) reported(id subscriber.SessionID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r, known := n.byNAS[id.NAS]; {
	case known && r.client != id.Client:
		n.byNAS[id.NAS] = reporter{r.client, true}
	case !known && len(n.byNAS) < maxReporters:
		if n.byNAS == nil {
			n.byNAS = make(map[string]reporter)
		}
		n.byNAS[id.NAS] = reporter{client: id.Client}
	}
}

// foreign returns the client that alone reports sessions of a NAS, if that is
// another than the given one.
func (n *nasReporters) foreign(id subscriber.SessionID) (client string, foreign bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, known := n.byNAS[id.NAS]
	return r.client, known && !r.several && r.client != id.Client
}
