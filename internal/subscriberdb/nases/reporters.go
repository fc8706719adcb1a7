package nases

import (
	"sync"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Reporters are the clients that report the sessions of NASes. The zero value is empty; its
// methods may be called concurrently.
type Reporters struct {
	mu    sync.Mutex
	byNAS map[string]reporter
}

// reporter is a client that reports the sessions of a NAS.
type reporter struct {
	client  string
	several bool // others do too
}

// maxOfClient bounds the NASes of one client that are known, where it is alone; see quota.Shares.
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

// Foreign returns the client that alone reports sessions of a NAS, if that is
// another than the given one.
func (n *Reporters) Foreign(id subscriber.SessionID) (client string, foreign bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, known := n.byNAS[id.NAS]
	return r.client, known && !r.several && r.client != id.Client
}
