package subscriberdb

import "github.com/redis/go-redis/v9"

// commitScript applies one decision if what it was decided on still stands.
// There is no rule in it: it compares, and carries out a list of writes.
//
// KEYS
//
//	1    the group's feed
//	2    the group's hash of online addresses
//	3..  keys that ARGV refers to by their number
//
// ARGV
//
//	length of the feed
//	number of conditions, then for each:
//	  v <key> <version>   the record has this version; "" absent, "-" has none
//	  s <key> <value>     the string is this; "" absent
//	then the writes, in order:
//	  del  <record> <inside> <index> <reason> <text>
//	  put  <record> <inside> <kind> <ttl> <text> <n> <n fields and values>
//	  list <inside> <index> <witness> <ttl>
//	  set  <key> <value> <ttl>
//	  mark <key> <value> <ttl> <pending> <nas>
//
// ttl is in milliseconds, 0 for none; index is the key number of the NAS's set
// of addresses, 0 for none; text is the record as it stands in the feed. list
// comes after the put of a record that is new to these two.
//
// Returns {1, identifier of the last feed entry} when it was done, or
// {0, state of each condition's key} when a condition did not hold: a record's
// fields flat, or the string.
var commitScript = redis.NewScript(`
local length, n = ARGV[1], tonumber(ARGV[2])
local pos, holds = 2, true
for i = 1, n do
  local kind, key, want = ARGV[pos + 1], KEYS[tonumber(ARGV[pos + 2])], ARGV[pos + 3]
  if kind == 's' then
    holds = holds and (redis.call('GET', key) or '') == want
  elseif want == '' then
    holds = holds and redis.call('EXISTS', key) == 0
  else
    holds = holds and (redis.call('HGET', key, 'version') or '-') == want
  end
  pos = pos + 3
end
if not holds then
  local states = {0}
  for i = 1, n do
    local key = KEYS[tonumber(ARGV[3 * i + 1])]
    if ARGV[3 * i] == 's' then
      states[i + 1] = redis.call('GET', key) or ''
    else
      states[i + 1] = redis.call('HGETALL', key)
    end
  end
  return states
end

local id = ''
while pos < #ARGV do
  local write, key, inside = ARGV[pos + 1], KEYS[tonumber(ARGV[pos + 2])], ARGV[pos + 3]
  if write == 'del' then
    local index = KEYS[tonumber(ARGV[pos + 4])]
    id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', length, '*', 'kind', 'deleted',
      'inside', inside, 'reason', ARGV[pos + 5], 'record', ARGV[pos + 6])
    redis.call('DEL', key)
    redis.call('HDEL', KEYS[2], inside)
    if index then redis.call('SREM', index, inside) end
    pos = pos + 6
  elseif write == 'put' then
    local ttl, fields = ARGV[pos + 5], tonumber(ARGV[pos + 7])
    id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', length, '*', 'kind', ARGV[pos + 4],
      'inside', inside, 'ttl', ttl, 'record', ARGV[pos + 6])
    redis.call('HSET', key, 'version', id, unpack(ARGV, pos + 8, pos + 7 + fields))
    if ttl == '0' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ttl) end
    pos = pos + 7 + fields
  elseif write == 'list' then
    inside = ARGV[pos + 2]
    local index, expires = KEYS[tonumber(ARGV[pos + 3])], tonumber(ARGV[pos + 5])
    if expires > 0 then expires = expires + tonumber(string.match(id, '^%d+')) end
    redis.call('HSET', KEYS[2], inside, ARGV[pos + 4] .. ' ' .. string.format('%.0f', expires))
    if index then redis.call('SADD', index, inside) end
    pos = pos + 5
  else
    local value, ttl = ARGV[pos + 3], ARGV[pos + 4]
    pos = pos + 4
    if write == 'mark' then
      id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', length, '*', 'kind', 'nas_restart',
        'nas', ARGV[pos + 2], 'at', value)
      redis.call('SADD', KEYS[tonumber(ARGV[pos + 1])], ARGV[pos + 2])
      value = value .. ' ' .. id
      pos = pos + 2
    end
    if ttl == '0' then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ttl) end
  end
end
return {1, id}
`)

// buryScript announces the end of a record that others removed.
//
// KEYS
//
//	1 record, 2 marker, 3 hash of online addresses, 4 feed,
//	5 set of the NAS's addresses, 6 session state
//
// ARGV
//
//	1 inside address, 2 its value in the hash of online addresses ("" for none),
//	3 length of the feed, 4 session state now, 5 tombstone ("" for none),
//	6 its ttl in milliseconds, 7 reason, 8 the record as it stands in the feed
//
// Returns 1 when it was announced; 0 when the record exists or its entry in the
// hash of online addresses is another; -1 when the marker is missing.
var buryScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local witness = redis.call('HGET', KEYS[3], ARGV[1]) or ''
if witness ~= ARGV[2] then return 0 end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', 'kind', 'deleted',
  'inside', ARGV[1], 'reason', ARGV[7], 'record', ARGV[8])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('SREM', KEYS[5], ARGV[1])
if ARGV[5] ~= '' and (redis.call('GET', KEYS[6]) or '') == ARGV[4] then
  redis.call('SET', KEYS[6], ARGV[5], 'PX', ARGV[6])
end
return 1
`)

// sweptScript forgets that a NAS's restart is to be swept, unless it restarted
// again.
//
// KEYS: 1 restart, 2 set of restarts to sweep. ARGV: 1 the restart that was
// swept, 2 the NAS. Returns 1 when it is done, 0 when there is a newer restart.
var sweptScript = redis.NewScript(`
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SREM', KEYS[2], ARGV[2])
return 1
`)
