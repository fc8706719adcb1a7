package subscriberdb

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// renewScript deletes a feed if its last identifier is the highest possible one. The check
// is in the script because several daemons may call it, and a late call must not delete the
// new feed.
//
// KEYS: 1 the feed. Returns 1 when it was deleted.
var renewScript = redis.NewScript(`
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then return 0 end
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' and info[i + 1] == '18446744073709551615-18446744073709551615' then
    return redis.call('UNLINK', KEYS[1])
  end
end
return 0
`)

// renewFeed deletes a feed that accepts no more entries. Its readers find that the entry
// that they read last is gone, and compare everything. New versions are still higher than
// the records' present ones, because Redis makes them from its clock.
func (f *changeFeed) renewFeed(ctx context.Context, g *txn.Group) {
	f.found(g.Name, codec.GarbageFeed, g.Feed)
	if err := f.client.Exchange(ctx, []redis.Cmder{redisconn.NewCall(ctx, renewScript, []string{g.Feed})}); err != nil {
		f.logger.Error("change feed takes no entry, and cannot be deleted", "group", g.Name, "error", err)
	}
}

// aheadScript deletes a feed whose last identifier was not made from Redis's clock: all
// later identifiers would be in the future too.
//
// KEYS: 1 the feed. ARGV: 1 how far its identifiers may be ahead of the clock, in
// milliseconds. Returns 1 when it was deleted.
var aheadScript = redis.NewScript(`
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last == 0 then return 0 end
local now = redis.call('TIME')
if tonumber(string.match(last[1][1], '^%d+')) <= now[1] * 1000 + ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
return 1
`)

// entryAhead is the tolerated lead of an identifier over Redis's clock, because that clock
// may have been set back.
const entryAhead = time.Hour

// begunAnew deletes the feed if its identifiers are too far ahead of Redis's clock, and
// reports whether it did. Our own clock, which may be wrong, decides only whether to ask
// Redis.
func (f *changeFeed) begunAnew(ctx context.Context, g *txn.Group, last string) (bool, error) {
	if !subscriber.VersionTime(last).After(f.now().Add(entryAhead)) {
		return false, nil
	}
	call := redisconn.NewCall(ctx, aheadScript, []string{g.Feed}, entryAhead.Milliseconds())
	if err := f.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return false, fmt.Errorf("check identifiers of feed %q: %w", g.Name, err)
	}
	if call.Val() != int64(1) {
		return false, nil
	}
	f.found(g.Name, codec.GarbageFeed, g.Feed+" "+last)
	return true, nil
}
