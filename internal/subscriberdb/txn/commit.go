package txn

import (
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// commitList builds the call of commitScript for several transactions of one group.
type commitList struct {
	e    *Engine
	keys []any
	args []any
	tx   *Txn
	own  int  // index of the transaction's first key
	only bool // conditions write nothing
}

// commitArgs returns the call of commitScript for the transactions of a batch.
func commitArgs(e *Engine, b *batch) []any {
	c := &commitList{
		e: e, only: b.whole,
		keys: make([]any, 0, 3+2+4*len(b.txns)+48*len(b.txns)),
		args: make([]any, 0, 1+48*len(b.txns)),
	}
	c.keys = append(c.keys, "evalsha", commitScript.Plain().Hash(), 0, b.group.Feed, b.group.Online)
	c.args = append(c.args, e.o.FeedLimit, b.frees)
	for _, tx := range b.txns {
		c.add(tx)
	}
	c.keys[2] = len(c.keys) - 3
	return append(c.keys, c.args...)
}

func (c *commitList) add(tx *Txn) {
	c.tx, c.own = tx, len(c.keys)
	at := len(c.args)
	c.args = append(c.args, 0)
	claimed := c.conditions()
	c.write(&tx.Decision, claimed)
	c.args[at] = len(c.args) - at - 1
}

// conditions appends the conditions of the read set, and reports whether the condition on
// the session's state also writes it.
func (c *commitList) conditions() (claimed bool) {
	tx := c.tx
	count := len(c.args)
	c.args = append(c.args, 0)
	n := 0
	if tx.usesRestart {
		c.args = append(c.args, "s", c.key(tx.keyRestart()), tx.restart)
		n++
	}
	if tx.Inside.IsValid() {
		c.args = append(c.args, "v", c.key(tx.keyRecord()), versionOf(tx.holder))
		n++
	}
	if a := tx.elsewhere(tx.Inside); a.IsValid() {
		c.args = append(c.args, "v", c.key(codec.RecordKey(tx.Group.Name, a)), versionOf(tx.current))
		n++
	}
	if tx.remembers() && !tx.versionCoversState {
		n++
		if claimed = tx.line == "" && tx.Decision.Session != nil && !c.only; claimed {
			c.args = append(c.args, "n")
			c.state(tx.keySession(), tx.Session, tx.Decision.Session)
		} else {
			c.args = append(c.args, "s", c.key(tx.keySession()), tx.line)
		}
	}
	c.args[count] = n
	return claimed
}

// key returns the number of a key in the script, and adds the key if it is new.
func (c *commitList) key(name string) int {
	for i := c.own; i < len(c.keys); i++ {
		if c.keys[i] == name {
			return i - 2
		}
	}
	c.keys = append(c.keys, name)
	return len(c.keys) - 3
}

// write appends the decision's writes, deletions first.
func (c *commitList) write(d *subscriber.Decision, claimed bool) {
	for i := range d.Delete {
		c.delete(&d.Delete[i])
	}
	if d.Put != nil {
		c.put(d)
	}
	if d.Session != nil && !claimed {
		c.args = append(c.args, "set")
		c.state(c.tx.keySession(), c.tx.Session, d.Session)
	}
	if d.Restart != nil {
		c.mark(d.Restart)
	}
}

func (c *commitList) delete(e *subscriber.Ending) {
	r := &e.Record
	c.args = append(c.args, "del", c.record(r), r.Inside.String(), e.Reason.String(), e.Cause, codec.RecordText(r))
	if e.Tombstone != nil {
		c.args = append(c.args, "close")
		c.state(codec.SessionKey(c.tx.Group.Name, r.SessionID), r.SessionID, e.Tombstone)
	}
}

// record returns the number of a record's key in the script.
func (c *commitList) record(r *subscriber.Record) int {
	if r.Inside == c.tx.Inside {
		return c.key(c.tx.keyRecord())
	}
	return c.key(codec.RecordKey(r.Group, r.Inside))
}

// put appends the write of the record, and of its entry in the hash of online addresses if
// there is none yet.
func (c *commitList) put(d *subscriber.Decision) {
	r, kind := d.Put, subscriber.Updated
	if d.Created {
		kind = subscriber.Created
	}
	stands := c.tx.recordAt(r.Inside)
	if slices.ContainsFunc(d.Delete, func(e subscriber.Ending) bool { return e.Record.Inside == r.Inside }) {
		stands = nil
	}
	ttl := c.e.recordTTL(c.tx.Group, r)
	if ttl > 0 {
		r.ExpiresAt = c.e.o.Now().Add(ttl)
	}
	known := ""
	if stands == nil || stands.SessionID != r.SessionID || stands.UserName != r.UserName {
		known = codec.FormatOnlineEntry(r)
	}
	c.args = append(c.args, "put", c.record(r), r.Inside.String(), codec.KindName(kind), ttl.Milliseconds(), codec.RecordText(r), known, 0)
	from := len(c.args)
	c.args = codec.AppendFields(c.args, r, stands != nil)
	c.args[from-1] = len(c.args) - from
}

// state appends the write of a session's state: key, line and time to live.
func (c *commitList) state(key string, id subscriber.SessionID, state *subscriber.SessionState) {
	var ttl time.Duration
	if state.Phase == subscriber.Open && state.Inside.IsValid() && !c.tx.FoundNoLink() {
		ttl = c.e.OpenTTL(c.tx.Group.TTL(id.Client))
	} else {
		ttl = c.e.closedTTL(c.tx, id, state)
	}
	c.args = append(c.args, c.key(key), codec.FormatState(state), ttl.Milliseconds())
}

func (c *commitList) mark(r *subscriber.Restart) {
	tx := c.tx
	c.args = append(c.args, "mark", c.key(tx.keyRestart()), codec.FormatRestart(r),
		c.e.restartTTL(tx.Session).Milliseconds(), c.key(codec.RestartsKey(tx.Group.Name)), codec.NASRef(tx.Session))
}

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
// or 0 if a condition did not hold and nothing was written. With an audit entry it applies
// all or none, and returns the numbers of those that it refused, from 1.
var commitScript = trail.NewScript(`
local call, feed, online, length = redis.call, KEYS[1], KEYS[2], ARGV[1]
local pos, strings, answers = 3, {}, {}

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

if whole then
  local refused, number = {}, 1
  while pos <= #ARGV do
    local after = pos + 1 + tonumber(ARGV[pos])
    pos = pos + 1
    if not stands() then refused[#refused + 1] = number end
    pos, number = after, number + 1
  end
  if #refused > 0 then return false, refused end
  pos, strings = 3, {}
end
if ARGV[2] == '1' then call('HDEL', online, '') end
record()
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
