package txn

import "github.com/redis/go-redis/v9"

// A Redis without free memory (maxmemory with noeviction) refuses commands that could take
// some. It refuses a script at the first such command, unless the script wrote before,
// because a script cannot be stopped half-way (scriptVerifyOOM in script.c). So a script
// that frees memory, or must not fail for lack of it, begins with a write that is never
// refused: a deletion. The flag allow-oom would have the same effect, but needs a header
// that the embedded database cannot parse.

// commitScript applies decisions, each if its read set still holds. It contains no rules of
// accounting: it compares, and executes lists of writes.
//
// KEYS
//
//	1    the group's feed
//	2    the group's hash of online addresses
//	3..  keys that ARGV refers to by their number
//
// ARGV
//
//	most entries of the feed, 1 to go on where Redis is full, else 0, then for each transaction:
//	number of the ARGVs that follow for this transaction
//	number of conditions, then each of them:
//	  v <record> <version>     the record has this version; "" absent, "-" has none
//	  s <key> <value>          the string is this; "" absent
//	  n <key> <value> <ttl>    the string is absent, and is now this; comes last
//	then the writes, in order:
//	  del  <record> <inside> <reason> <cause> <text>
//	  put  <record> <inside> <kind> <ttl> <text> <entry> <n> <n fields and values>
//	  set  <key> <value> <ttl>
//	  close <key> <value> <ttl> as set, with the old value's word for the session's Start
//	  mark <key> <value> <ttl> <pending> <nas>
//
// ttl is in milliseconds, 0 for none; text is the record in the form of the feed; entry is
// its value in the hash of online addresses, "" if the hash has it already.
//
// Returns for each transaction the identifier of its last feed entry, "" if it wrote none,
// or 0 if a condition did not hold and nothing was written.
var commitScript = redis.NewScript(`
local call, feed, online, length = redis.call, KEYS[1], KEYS[2], ARGV[1]
local pos, strings, answers = 3, {}, {}
if ARGV[2] == '1' then call('HDEL', online, '') end

-- A key of another type is as none: a set replaces it.
local function get(key)
  if not strings[key] then
    local value = redis.pcall('GET', key)
    strings[key] = type(value) == 'string' and value or ''
  end
  return strings[key]
end

local function version(key)
  local value = redis.pcall('HGET', key, 'version')
  if type(value) == 'table' then return nil end -- no hash
  return value or '-'
end

local function set(key, value, ttl, ...)
  strings[key] = nil
  if ttl == '0' then return call('SET', key, value, ...) end
  return call('SET', key, value, 'PX', ttl, ...)
end

local function append(...)
  return call('XADD', feed, 'MAXLEN', '~', length, '*', 'kind', ...)
end

local function stands()
  local n, holds = tonumber(ARGV[pos]), true
  pos = pos + 1
  for i = 1, n do
    local kind, key, want = ARGV[pos], KEYS[tonumber(ARGV[pos + 1])], ARGV[pos + 2]
    pos = pos + 3
    if kind == 'n' then
      pos = pos + 1
      if holds and type(redis.pcall('GET', key)) == 'table' then call('DEL', key) end
      return holds and set(key, want, ARGV[pos - 1], 'NX')
    elseif kind == 's' then
      holds = holds and get(key) == want
    elseif want == '' then
      holds = holds and call('EXISTS', key) == 0
    else
      holds = holds and version(key) == want
    end
  end
  return holds
end

local function write()
  local what, key, value = ARGV[pos], KEYS[tonumber(ARGV[pos + 1])], ARGV[pos + 2]
  if what == 'del' then
    local id = append('deleted', 'inside', value, 'reason', ARGV[pos + 3], 'cause', ARGV[pos + 4],
      'record', ARGV[pos + 5])
    call('DEL', key)
    call('HDEL', online, value)
    pos = pos + 6
    return id
  elseif what == 'put' then
    local ttl, from, upto = ARGV[pos + 4], pos + 8, pos + 7 + tonumber(ARGV[pos + 7])
    local id = append(ARGV[pos + 3], 'inside', value, 'ttl', ttl, 'record', ARGV[pos + 5])
    call('HSET', key, 'version', id, unpack(ARGV, from, upto))
    if ttl == '0' then call('PERSIST', key) else call('PEXPIRE', key, ttl) end
    if ARGV[pos + 6] ~= '' then call('HSET', online, value, ARGV[pos + 6]) end
    pos = upto + 1
    return id
  elseif what == 'set' or what == 'close' then
    if what == 'close' then
      local stood = get(key)
      value = value .. (string.match(stood, ' stamp=%S+') or string.match(stood, ' packet=%S+') or '')
    end
    set(key, value, ARGV[pos + 3])
    pos = pos + 4
    return nil
  end
  local id = append('nas_restart', 'nas', ARGV[pos + 5], 'at', value)
  call('SADD', KEYS[tonumber(ARGV[pos + 4])], ARGV[pos + 5])
  set(key, value .. ' ' .. id, ARGV[pos + 3])
  pos = pos + 6
  return id
end

while pos <= #ARGV do
  local after = pos + 1 + tonumber(ARGV[pos])
  local answer = 0
  pos = pos + 1
  if stands() then
    answer = ''
    while pos < after do answer = write() or answer end
  end
  answers[#answers + 1] = answer
  pos = after
end
return answers
`)
