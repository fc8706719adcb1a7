package nases

import (
	"sync"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Reporters holds, for each NAS, the client that reports its sessions. The zero value is
// empty; its methods may be called concurrently.
type Reporters struct {
	mu    sync.Mutex
	byNAS map[string]reporter
}

// reporter is a client that reports the sessions of a NAS.
type reporter struct {
	client  string
	several bool // other clients report it too
}

// maxOfClient bounds the NASes of a client that is alone; see quota.Shares.
const maxOfClient = 65_536

// Reported notes that a client reports sessions of a NAS.
func (n *Reporters) Reported(id subscriber.SessionID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r, known := n.byNAS[id.NAS]; {
	case known && r.client != id.Client:
		n.byNAS[id.NAS] = reporter{r.client, true}
	case !known && len(n.byNAS) < maxOfClient:
		if n.byNAS == nil {
			n.byNAS = make(map[string]reporter)
		}
		n.byNAS[id.NAS] = reporter{client: id.Client}
	}
}

// Foreign returns the only client that reports sessions of a NAS, if that is not the given
// one.
func (n *Reporters) Foreign(id subscriber.SessionID) (client string, foreign bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, known := n.byNAS[id.NAS]
	return r.client, known && !r.several && r.client != id.Client
}
