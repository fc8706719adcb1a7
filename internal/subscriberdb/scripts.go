package subscriberdb

import (
	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
	"github.com/sessiond/sessiond/internal/subscriberdb/nases"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// scripts are all that a server has to know. Those that free memory, or must not fail for
// want of it, write first something that is never refused: see package txn.
func scripts() []*redis.Script {
	general, fast := txn.Scripts()
	fast = append(append(fast, bindings.Scripts()...), nases.Scripts()...)
	return append([]*redis.Script{
		general, announceScript, sweptScript, takeBackScript,
		ownerScript, positionScript, trimScript, aheadScript, renewScript, discardScript, discardTextScript,
	}, fast...)
}
