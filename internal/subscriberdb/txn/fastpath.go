package txn

import (
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// commitOperation returns the operation that commits the decision: the call of the script
// for a common event if that can write it.
func (tx *Txn) commitOperation(e *Engine) operation {
	d, p, own := &tx.Decision, tx.Decision.Put, tx.holder
	switch {
	case e.generalOnly || d.Restart != nil:
	case p == nil:
		if own == nil || len(d.Delete) != 1 || d.Delete[0].Record.Inside != tx.Inside {
			break
		}
		ended := &d.Delete[0]
		if tx.versionCoversState && d.Session != nil && ended.Reason == subscriber.ReasonStop && ended.Tombstone == nil && !tx.usesRestart {
			return opStop
		}
		// Only the record ends, for a NAS restart or an operator.
		if !tx.remembers() && own.Version != codec.Unversioned && d.Session == nil && ended.Cause == 0 {
			return opRemove
		}
	case len(d.Delete) > 0 || d.Session == nil || !tx.usesRestart:
	case !d.Created:
		// Only the fields that an Interim changes, of a record whose version covers the session's state.
		if tx.versionCoversState && own != nil && *d.Session == tx.session && own.RefreshedOnly(p) && !e.stateNeedsRewrite(own, p) {
			return opRefresh
		}
	case tx.Conflicted: // there may be a key that createScript would not overwrite
	default:
		// The Start of an unknown session, without rare fields.
		if own == nil && tx.remembers() && tx.session.Phase == subscriber.Unknown && p.SessionID == tx.Session && p.Inside == tx.Inside &&
			p.ExpiresAt.IsZero() && !p.Unconfirmed && codec.IsPlain(p) && p.UpdatedAt == p.StartedAt && !p.StartedAt.IsZero() &&
			p.InputOctets == 0 && p.OutputOctets == 0 && *d.Session == startedState(p, d.Session) {
			return opCreate
		}
	}
	return opCommit
}

// startedState returns the state of a session whose record an Acct-Start wrote.
func startedState(r *subscriber.Record, as *subscriber.SessionState) subscriber.SessionState {
	state := subscriber.OpenState(r)
	state.Exact, state.Stamp, state.Digest = true, as.Stamp, as.Digest
	return state
}

// removedState returns the new state of the session of a record that opRemove ends.
func (tx *Txn) removedState(e *Engine) *subscriber.SessionState {
	ended := &tx.Decision.Delete[0]
	if ended.Tombstone != nil {
		return ended.Tombstone
	}
	r := &ended.Record
	return &subscriber.SessionState{
		Phase: subscriber.Closed, Reason: ended.Reason, Inside: r.Inside,
		Start: r.StartedAt, End: e.o.Now().UTC(), UserName: r.UserName,
	}
}

// subject returns the session that the transaction is about.
func (tx *Txn) subject() subscriber.SessionID {
	if tx.op == opRemove {
		return RememberedAs(&tx.Decision.Delete[0].Record)
	}
	return tx.Session
}

// RememberedAs returns the identity of a record's tombstone: its session or, for a record
// without one that an operator wrote, its address.
func RememberedAs(r *subscriber.Record) subscriber.SessionID {
	if r.SessionID == (subscriber.SessionID{}) {
		return subscriber.SessionID{Leg: r.Inside}
	}
	return r.SessionID
}

// writeCreate builds the call of createScript.
func (b *batch) writeCreate(e *Engine) {
	a := &b.args
	b.findBases()
	a.List = append(a.List, "evalsha", createScript.Hash(), 2+len(b.bases)+2*len(b.txns), b.group.Feed, b.group.Online)
	b.addRestartKeys()
	b.addSessionsAndRecords()
	expires := e.expiryAfter(b.ttl)
	a.List = append(a.List, e.o.FeedLimit, len(b.bases), b.ttl,
		e.OpenTTL(time.Duration(b.ttl)*time.Millisecond).Milliseconds(), b.group.addressAt)
	a.Text = codec.AppendExpiry(a.Text, expires)
	a.Cut()
	escaped, classes := len(a.List), slices.ContainsFunc(b.txns, (*Txn).putsClass)
	a.List = append(a.List, "", createWords)
	if classes {
		a.List[escaped+1] = createWords + 1
	}
	b.addRestarts()
	for _, tx := range b.txns {
		r := tx.Decision.Put
		r.ExpiresAt = expires
		for _, raw := range [...]*string{&r.UserName, &r.NAS, &r.Client, &r.AcctSessionID, &r.CallingStationID} {
			if a.AddWord(raw) {
				a.List[escaped] = "1"
			}
		}
		a.List = append(a.List, codec.FormatAddr(r.NASAddress), codec.TimeArg(&r.StartedAt))
		a.Text = codec.AppendStart(a.Text, tx.Decision.Session)
		a.Cut()
		if classes {
			a.AddWord(&r.Class) // the script checks by itself whether it is escaped
		}
	}
}

// createWords is the number of arguments that createScript takes for each session; one more
// if any of them has a Class.
const createWords = 8

// putsClass reports whether the transaction's record has a Class.
func (tx *Txn) putsClass() bool { return tx.Decision.Put.Class != "" }

// writeRefresh builds the call of refreshScript.
func (b *batch) writeRefresh(e *Engine) {
	a := &b.args
	b.findBases()
	a.List = append(a.List, "evalsha", refreshScript.Hash(), 1+len(b.bases)+len(b.txns), b.group.Feed)
	b.addRestartKeys()
	for _, tx := range b.txns {
		a.Text = codec.AppendRecordKey(a.Text, b.group.Name, tx.Inside)
		a.Cut()
	}
	a.List = append(a.List, e.o.FeedLimit, len(b.bases), b.ttl, b.group.addressAt)
	b.addRestarts()
	expires := e.expiryAfter(b.ttl)
	for _, tx := range b.txns {
		r := tx.Decision.Put
		r.ExpiresAt = expires
		a.List = append(a.List, &tx.holder.Version, codec.TimeArg(&r.UpdatedAt), &r.InputOctets, &r.OutputOctets)
	}
}

// writeStop builds the call of stopScript.
func (b *batch) writeStop(e *Engine) {
	a := &b.args
	a.List = append(a.List, "evalsha", stopScript.Plain().Hash(), 2+2*len(b.txns), b.group.Feed, b.group.Online)
	b.addSessionsAndRecords()
	reason := ""
	if b.op == opRemove {
		reason = b.reason.String()
	}
	a.List = append(a.List, e.o.FeedLimit, b.ttl, b.group.addressAt, reason)
	for _, tx := range b.txns {
		a.List = append(a.List, &tx.holder.Version)
		a.Text = codec.AppendState(a.Text, tx.last)
		a.Cut()
		a.Text = codec.AppendEnd(a.Text, &tx.Decision.Delete[0])
		a.Cut()
	}
}

// addSessionsAndRecords adds, for each transaction, the keys of its session's state and of
// its record.
func (b *batch) addSessionsAndRecords() {
	a := &b.args
	for _, tx := range b.txns {
		a.Text = codec.AppendSessionKey(a.Text, b.group.Name, tx.subject())
		a.Cut()
		a.Text = codec.AppendRecordKey(a.Text, b.group.Name, tx.Inside)
		a.Cut()
	}
}

// findBases finds one transaction for each restart that the decisions depend on.
func (b *batch) findBases() {
	for _, tx := range b.txns {
		if !slices.ContainsFunc(b.bases, tx.sameRestart) {
			b.bases = append(b.bases, tx)
		}
	}
}

// addRestartKeys adds the keys of the restarts that the decisions depend on.
func (b *batch) addRestartKeys() {
	for _, tx := range b.bases {
		tx.keyRestart()
		b.args.List = append(b.args.List, &tx.restartKey)
	}
}

// addRestarts adds the expected values of those restarts.
func (b *batch) addRestarts() {
	for _, tx := range b.bases {
		b.args.List = append(b.args.List, &tx.restart)
	}
}

// sameRestart reports whether both decisions depend on the same restart line of the same
// NAS.
func (tx *Txn) sameRestart(other *Txn) bool {
	return tx.Session.NAS == other.Session.NAS && tx.Session.Client == other.Session.Client && tx.restart == other.restart
}

// The following scripts do the common part of commitScript's work, for many sessions at
// once. Each writes one feed entry with a line for each of its sessions. A call has no
// session and no address twice.
//
// Each returns the identifier of the feed entry ("" for none), then the numbers of the
// sessions that it refused because Redis has other data than the decision expected; a first
// number of 0 refuses all sessions.

// createScript creates the records of new sessions, each if Redis has neither the session's
// state nor a record at its address.
//
// KEYS: 1 the group's feed, 2 the hash of online addresses, then the restarts of
// the NASes, then for each session its state and its record.
//
// ARGV: 1 most entries of the feed, 2 number of restarts, 3 ttl in milliseconds (0 for
// none) of the records and 4 of the states, 5 where the address begins in a
// record's key, 6 expiry of the records in the form of an online entry, 7 "1" where words
// but class are escaped, 8 number of words of a session, then each restart ("" for none), then
// for each session as words: user_name, nas, client, acct_session_id,
// calling_station_id, nas_address, started_at, the end of the state line
// (" stamp=..." or nothing) and, where there are 9, class.
var createScript = redis.NewScript(`
local call, args, n = redis.call, ARGV, tonumber(ARGV[2])
local ttl, kept, digits, expires, escaped = args[3], args[4], tonumber(args[5]), ' ' .. args[6], args[7] == '1'
local words = tonumber(args[8])
local known = call('MGET', unpack(KEYS, 3, 2 + n))
for i = 1, n do
  if (known[i] or '') ~= args[8 + i] then return {'', 0} end
end

local function raw(word)
  return (string.gsub(word, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

local free = call('EXISTS', unpack(KEYS, n + 3)) == 0
local answer, begun, list, online = {''}, {}, {}, {}
for i = n + 3, #KEYS, 2 do
  local number = (i - n - 1) / 2
  if free or call('EXISTS', KEYS[i], KEYS[i + 1]) == 0 then
    local at, inside = 8 + n + words * (number - 1), string.sub(KEYS[i + 1], digits)
    local user, nas, client, id, started = args[at + 1], args[at + 2], args[at + 3], args[at + 4], args[at + 7]
    list[#list + 1] = inside .. ' started_at=' .. started .. ' user_name=' .. user .. ' nas=' .. nas ..
      ' client=' .. client .. ' acct_session_id=' .. id .. ' calling_station_id=' .. args[at + 5] ..
      ' nas_address=' .. args[at + 6]
    if words > 8 then list[#list] = list[#list] .. ' class=' .. args[at + 9] end
    if user == '' then user = '-' end
    online[#online + 1] = inside
    online[#online + 1] = client .. '/' .. nas .. '/' .. id .. ' ' .. user .. expires
    local state = 'open ' .. inside .. ' ' .. started .. ' - ' .. user .. args[at + 8]
    if kept == '0' then call('SET', KEYS[i], state) else call('PSETEX', KEYS[i], kept, state) end
    begun[#begun + 1] = number
  else
    answer[#answer + 1] = number
  end
end
if #begun == 0 then return answer end
local entry = call('XADD', KEYS[1], 'MAXLEN', '~', args[1], '*', 'kind', 'began', 'ttl', ttl,
  'list', table.concat(list, '\n'))
call('HSET', KEYS[2], unpack(online))
for _, number in ipairs(begun) do
  local record, at = KEYS[n + 2 + 2 * number], 8 + n + words * (number - 1)
  local user, nas, client, id, station = args[at + 1], args[at + 2], args[at + 3], args[at + 4], args[at + 5]
  if escaped then
    user, nas, client, id, station = raw(user), raw(nas), raw(client), raw(id), raw(station)
  end
  call('HSET', record, 'version', entry, 'user_name', user, 'nas', nas, 'client', client, 'acct_session_id', id,
    'calling_station_id', station, 'nas_address', args[at + 6], 'started_at', args[at + 7])
  if words > 8 and args[at + 9] ~= '' then
    local class = args[at + 9]
    if string.find(class, '%', 1, true) then class = raw(class) end
    call('HSET', record, 'class', class)
  end
  if ttl ~= '0' then call('PEXPIRE', record, ttl) end
end
answer[1] = entry
return answer
`)

// refreshScript writes the fields that an Interim-Update changes into existing records: the
// most frequent commit.
//
// KEYS: 1 the group's feed, then the restarts of the NASes, then the records.
//
// ARGV: 1 most entries of the feed, 2 number of restarts, 3 ttl in milliseconds (0 for
// none), 4 where the address begins in a record's key, then each restart ("" for
// none), then for each record: version, updated_at, input_octets, output_octets.
var refreshScript = redis.NewScript(`
local call, args, n, ttl, digits = redis.call, ARGV, tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local known = call('MGET', unpack(KEYS, 2, 1 + n))
for i = 1, n do
  if (known[i] or '') ~= args[4 + i] then return {'', 0} end
end
local answer, standing, list = {''}, {}, {}
for i = 1, #KEYS - 1 - n do
  local key, at = KEYS[1 + n + i], n + 4 * i
  if redis.pcall('HGET', key, 'version') == args[at + 1] then
    standing[#standing + 1] = i
    list[#list + 1] = string.sub(key, digits) .. ' ' .. args[at + 2] .. ' ' .. args[at + 3] .. ' ' .. args[at + 4]
  else
    answer[#answer + 1] = i
  end
end
if #standing == 0 then return answer end
local entry = call('XADD', KEYS[1], 'MAXLEN', '~', args[1], '*', 'kind', 'refreshed', 'ttl', ttl,
  'list', table.concat(list, '\n'))
for _, i in ipairs(standing) do
  local key, at = KEYS[1 + n + i], n + 4 * i
  call('HSET', key, 'version', entry, 'updated_at', args[at + 2],
    'input_octets', args[at + 3], 'output_octets', args[at + 4])
  if ttl == '0' then call('PERSIST', key) else call('PEXPIRE', key, ttl) end
end
answer[1] = entry
return answer
`)

// stopScript deletes the records of sessions that stop, or that end for one common reason.
// It begins with a deletion of nothing, so that a Redis without free memory executes it
// (see commitScript). It writes the feed entry before it deletes the records, so that
// they remain if the feed accepts no entry.
//
// KEYS: 1 the group's feed, 2 the hash of online addresses, then for each session
// its state and its record.
//
// ARGV: 1 most entries of the feed, 2 ttl of the states in milliseconds, 3 where the
// address begins in a record's key, 4 the reason, "" for a Stop, then for each session:
// version of the record, the new state, and the line of the end in the feed. If there is a
// reason, the new state gets the old one's word for the session's Start (" stamp=..." or "
// packet=..."). With an audit entry it ends all sessions or none.
var stopScript = trail.NewScript(`
local call, args = redis.call, ARGV
local kept, digits = args[2], tonumber(args[3])
local answer, ended, records, insides, list = {''}, {}, {}, {}, {}
for i = 3, #KEYS, 2 do
  local number, record = (i - 1) / 2, KEYS[i + 1]
  local at = 3 * number + 1
  if redis.pcall('HGET', record, 'version') == args[at + 1] then
    local inside = string.sub(record, digits)
    ended[#ended + 1] = number
    records[#records + 1] = record
    insides[#insides + 1] = inside
    list[#list + 1] = inside .. ' ' .. args[at + 3]
  else
    answer[#answer + 1] = number
  end
end
if whole and #answer > 1 then return false, answer end
if #ended == 0 then return answer end
call('HDEL', KEYS[2], '')
record()
local entry = {'kind', 'stopped', 'list', table.concat(list, '\n')}
if args[4] ~= '' then
  entry[5], entry[6] = 'reason', args[4]
end
answer[1] = call('XADD', KEYS[1], 'MAXLEN', '~', args[1], '*', unpack(entry))
call('DEL', unpack(records))
call('HDEL', KEYS[2], unpack(insides))
for _, number in ipairs(ended) do
  local state, line = KEYS[1 + 2 * number], args[3 * number + 3]
  if args[4] ~= '' then
    local stood = redis.pcall('GET', state)
    if type(stood) == 'string' then
      line = line .. (string.match(stood, ' stamp=%S+') or string.match(stood, ' packet=%S+') or '')
    end
  end
  call('PSETEX', state, kept, line)
end
return answer
`)
