package subscriberdb

import (
	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// scripts are all that a server has to know. Those that free memory, or must not fail for
// want of it, write first something that is never refused: see package txn.
func scripts() []*redis.Script {
	general, fast := txn.Scripts()
	fast = append(fast, bindings.Scripts()...)
	return append([]*redis.Script{
		general, announceScript, sweptScript, takeBackScript, nasScript, countScript,
		ownerScript, positionScript, trimScript, aheadScript, renewScript, discardScript, discardTextScript,
	}, fast...)
}
