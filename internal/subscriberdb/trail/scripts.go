package trail

import (
	"github.com/redis/go-redis/v9"
)

// Script is a script that changes data, in two forms: as it is, and with an audit entry in
// the same step.
//
// Its text calls record() once, behind all that it compares and before its first change. With
// an entry, `whole` is true: the script must make its change as a whole or not at all, and
// return false and the list of what it refused.
type Script struct {
	plain, recorded *redis.Script
}

// NewScript returns the two forms of a script with the given text.
func NewScript(text string) Script {
	return Script{redis.NewScript(plainHead + text), redis.NewScript(recordedHead + text + recordedTail)}
}

// Plain returns the form without an entry.
func (s Script) Plain() *redis.Script { return s.plain }

// Recorded returns the form with an entry.
func (s Script) Recorded() *redis.Script { return s.recorded }

const plainHead = `
local whole = false
local function record() end
`

// recordedHead and recordedTail stand around the text of a script, which becomes a function.
//
// KEYS: behind those of the script: the trail, its head.
//
// ARGV: behind those of the script: the number of the entry, the hash of the entry before
// ("" for none), the text, its hash.
//
// Returns {1, <answer>} when it is done, {0, <hash>, <number>} if another entry is the last
// one, or {-1, <refused>} if the script refused a part; then nothing was written.
//
// A Redis without free memory executes the entry where the script wrote before it, such as a
// deletion of nothing (see package txn). An error behind the entry takes the entry back.
const recordedHead = `
local head, trail = table.remove(KEYS), table.remove(KEYS)
local hash, text, before, number = table.remove(ARGV), table.remove(ARGV), table.remove(ARGV), table.remove(ARGV)
local last = redis.call('HMGET', head, 'hash', 'number')
if (last[1] or '') ~= before then return {0, last[1] or '', last[2] or '0'} end
local whole, entry = true, nil

local function record()
  local answer = redis.pcall('XADD', trail, '*', 'entry', text, 'hash', hash)
  if type(answer) == 'table' then
    local why = answer.err
    if string.sub(why, 1, 3) ~= 'OOM' then why = 'AUDIT ' .. why end
    error(why, 0)
  end
  entry = answer
  redis.call('HSET', head, 'number', number, 'hash', hash)
end

local function change()
`

const recordedTail = `
end

local whole, done, refused = pcall(change)
if not whole then
  if entry then
    redis.call('XDEL', trail, entry)
    if last[1] then
      redis.call('HSET', head, 'number', last[2], 'hash', last[1])
    else
      redis.call('DEL', head)
    end
  end
  if type(done) == 'table' then done = done.err end
  return redis.error_reply(done)
end
if done == false then return {-1, refused} end
return {1, done}
`

// writes executes commands.
//
// KEYS: those of the commands. ARGV: for each command the number of its words, and the words.
var writes = NewScript(`
record()
local pos = 1
while pos <= #ARGV do
  local n = tonumber(ARGV[pos])
  redis.call(unpack(ARGV, pos + 1, pos + n))
  pos = pos + n + 1
end
return 0
`)

// replaces executes commands, if values are still those that the entry tells.
//
// KEYS: those of the commands. ARGV: the number of values, and for each its key, its field in
// the hash, "" for a string, whether it is there, and its text; then as of writes.
var replaces = NewScript(`
local pos = 2
for i = 1, tonumber(ARGV[1]) do
  local key, field, there, text = unpack(ARGV, pos, pos + 3)
  local value
  if field == '' then value = redis.call('GET', key) else value = redis.call('HGET', key, field) end
  if value ~= (there == '1' and text) then return false, {i} end
  pos = pos + 4
end
record()
while pos <= #ARGV do
  local n = tonumber(ARGV[pos])
  redis.call(unpack(ARGV, pos + 1, pos + n))
  pos = pos + n + 1
end
return 0
`)

// Scripts returns the scripts that a server has to load.
func Scripts() []*redis.Script {
	return []*redis.Script{writes.plain, writes.recorded, replaces.recorded, trimScript, nameScript, firstScript, beginScript, endScript, forgetScript}
}
