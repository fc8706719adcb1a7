package bindings

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// The log of a group's NAT says whose a block was, from when to when. The step that stores a
// binding also writes the events that follow from it: a script compares the blocks that are in
// service by the log with those that the binding has now. So each event is in the log once,
// however often the daemon writes a binding, and whatever it believes (decision 0069).

// LoggedWrite is a write to a stored binding, with the data that only the log needs.
type LoggedWrite struct {
	*nat.Binding // with Remove, only its place counts
	Remove       bool

	// Holder is the holder of a binding that is not held; nil where no more is known than the
	// binding says.
	Holder *nat.Identity

	// Left is when the blocks that the binding no longer has left service: not before the proof
	// that no session is left. Zero for the time of the write.
	Left time.Time

	// Known marks a binding that was in force before. While the log is not whole, its events
	// have the times of the binding.
	Known bool
}

// SaveLogged is SaveBindings for a group whose NAT is logged, with at most one write of each
// place. It reports whether the log began anew: then all bindings in force must be written
// again, and [Store.MarkLogWhole] be called. Without writes it begins the log where there is
// none.
func (s *Store) SaveLogged(ctx context.Context, group string, list []LoggedWrite) (anew bool, err error) {
	err = s.moveBindings(ctx, group)
	for more := true; more && err == nil; more = len(list) > 0 {
		chunk := list[:min(bindingChunk, len(list))] // in their order, which is about that of their times
		list = list[len(chunk):]
		var began bool
		began, err = s.saveChunk(ctx, group, chunk)
		anew = anew || began
	}
	if err != nil {
		return anew, fmt.Errorf("save bindings of group %q, and its NAT log: %w", group, err)
	}
	return anew, nil
}

// saveChunk writes some bindings, and their events, in one step. A Redis that lost its scripts
// refuses the events alone: then the whole step is repeated at once.
func (s *Store) saveChunk(ctx context.Context, group string, chunk []LoggedWrite) (anew bool, err error) {
	w := loggedWrites.Get().(*loggedWriter)
	defer w.free()
	call := w.call(ctx, group, s.o.Now(), chunk)
	w.cmds = append(w.cmds, call)
	w.cmds = append(w.cmds, w.rows.calls(ctx, group, w.rows.writes)...)
	err = s.client.Together(ctx, w.cmds)
	if err != nil && redis.HasErrorPrefix(call.Err(), "NOSCRIPT") {
		call.SetErr(nil)
		err = s.client.Exchange(ctx, []redis.Cmder{call}) // loads the script
	}
	if err != nil {
		return false, err
	}
	n, err := call.Int()
	return n == 1, err
}

// loggedWriter holds the memory of one step.
type loggedWriter struct {
	rows bindingWriter
	args codec.ArgBuffer
	cmds []redis.Cmder
}

var loggedWrites = sync.Pool{New: func() any { return new(loggedWriter) }}

func (w *loggedWriter) free() {
	clear(w.cmds)
	w.cmds = w.cmds[:0]
	w.args.Reset()
	w.rows.clear()
	loggedWrites.Put(w)
}

// call returns the call of logScript for a chunk, and collects its rows.
func (w *loggedWriter) call(ctx context.Context, group string, now time.Time, chunk []LoggedWrite) *redis.Cmd {
	a := &w.args
	a.List = append(a.List, "evalsha", logScript.Hash(), 3, codec.NATLogKey(group), codec.NATLogHeadKey(group), codec.NATLogBlocksKey(group),
		codec.NATStamp(now), rand.Text(), logLimit)
	for i := range chunk {
		b := &chunk[i]
		row := bindingWrite{b.Binding, b.Place(), codec.BindingPart(b.Outside)}
		if b.Remove {
			row.put = nil
		}
		w.rows.writes = append(w.rows.writes, row)
		a.Text = codec.AppendPlace(a.Text, row.block)
		a.Cut()
		live := !b.Remove && b.State != nat.Held
		switch {
		case live && b.Known:
			a.Text = append(a.Text, 'k')
		case live && !b.Left.IsZero():
			a.Text = append(append(a.Text, 'l'), codec.NATStamp(b.Left)...)
		case !b.Left.IsZero():
			a.Text = append(a.Text, codec.NATStamp(b.Left)...)
		}
		if live {
			a.Text = appendLines(a.Text, b)
		}
		a.Cut()
	}
	w.rows.sort()
	return redis.NewCmd(ctx, a.List...)
}

// appendLines appends a line for each block of a binding in service. The time of a further
// block counts only if the log does not have the block yet.
func appendLines(text []byte, w *LoggedWrite) []byte {
	holder := w.Holder
	if holder == nil {
		holder = &nat.Identity{Inside: w.Inside, UserName: w.UserName, AcctSessionID: w.AcctSessionID}
	}
	at := w.AllocatedAt
	for b := range w.All() {
		if b != w.Block {
			text = append(text, '\n')
			if !w.GrownAt.IsZero() {
				at = w.GrownAt
			}
		}
		text = codec.AppendNATLine(text, at, b, holder)
	}
	return text
}

// logLimit bounds the entries of a log that nobody trims.
const logLimit = 1_000_000

// logScript appends the events that follow from the new state of bindings: a block that the hash
// of blocks in service lacks is allocated, one that the binding has no longer is released. Two
// bindings of a place are one if inside address and time of allocation are equal. The holder of
// a block is that of the newest write that names its NAS.
//
// The time of an event: a block is allocated not before the latest time in the log, and
// released not before it was allocated. So a clock that is set back lets no two intervals of a
// block overlap (LOG-08).
//
// Where hash and head do not agree, because one of them was lost, the log begins anew, with
// another epoch. A stream that takes no entry is deleted.
//
// An entry has the field "first", with the number of its first event, and a field for each
// event: "a" with the line of a block for an allocation; the time, with that line, for a release.
// It has 16 events at most, which fit a node of a stream.
//
// A Redis without free memory refuses the first write, and so all: the new entry comes first.
//
// KEYS: 1 the log, 2 its head, 3 the blocks in service.
//
// ARGV: 1 the time, 2 an epoch for a log that begins, 3 most entries; then for each binding its
// place, and a text: the lines of its blocks, "" if it is not in service. Before them stands "k" if
// it was in force before, or "l" and the time at which other blocks left service; that time alone
// stands for a binding that is not in service.
//
// Returns 1 if the log began anew, else 0.
var logScript = redis.NewScript(`
local call, sub, match, find, byte = redis.call, string.sub, string.match, string.find, string.byte
local log, head, blocks = KEYS[1], KEYS[2], KEYS[3]
local state = call('HMGET', head, 'epoch', 'events', 'latest', 'bindings', 'whole')
local anew = 0
if not state[1] or call('HLEN', blocks) ~= tonumber(state[4]) then
  call('UNLINK', log, head, blocks)
  call('HSET', head, 'epoch', ARGV[2], 'events', 0, 'latest', '', 'bindings', 0)
  state, anew = {ARGV[2], '0', '', '0', false}, 1
end
local before, latest, whole = state[3], state[3], state[5]

local places, n = {}, 0
for i = 4, #ARGV, 2 do
  n = n + 1
  places[n] = ARGV[i]
end
if n == 0 then return anew end
local had = call('HMGET', blocks, unpack(places))

local total = tonumber(state[2])
local fields, size = {}, 0   -- of the new entries
local function release(line, at)
  local since = sub(line, 1, 30)
  if at < since then at = since end
  if at > latest then latest = at end
  fields[size + 1], fields[size + 2], size = at, line, size + 2
end
local function each(lines) return string.gmatch(lines, '[^\n]+') end
local function releaseAll(lines, at)
  if not find(lines, '\n', 1, true) then return release(lines, at) end
  for line in each(lines) do release(line, at) end
end

local released -- times by block, of this step
local function allocate(line, known, first)
  local at, least = sub(line, 1, 30), before
  if known and not whole then least = '' end
  if released then
    local left = released[match(line, '^%S+ (%S+)')]
    if left and left > least then least = left end
  end
  if at < least then
    line = least .. sub(line, 31)
    if first then line = line .. ' allocated_at=' .. at end
    at = least
  end
  if at > latest then latest = at end
  fields[size + 1], fields[size + 2], size = 'a', line, size + 2
  return line
end
local function identify(line)
  local at, inside = match(line, '^(%S+) %S+ (%S+)')
  return (match(line, ' allocated_at=(%S+)') or at) .. inside
end

local changed = {}   -- by number of a binding, the new lines of its blocks
local function compare(k, old, lines, left)
  local has, list = {}, {}
  for line in each(old) do has[match(line, '^%S+ (%S+)')] = line end
  for line in each(lines) do
    local block = match(line, '^%S+ (%S+)')
    local kept = has[block]
    if kept and (find(line, ' nas=', 1, true) or not find(kept, ' nas=', 1, true)) then
      local own = match(kept, ' allocated_at=%S+') or ''
      kept = sub(kept, 1, 30) .. sub(line, 31) .. own
    end
    has[block] = nil
    list[#list + 1] = {line = kept or line, new = not kept}
  end
  for line in each(old) do
    if has[match(line, '^%S+ (%S+)')] then release(line, left) end
  end
  changed[k] = list
end

local gone, knowns = {}, {}
for k = 1, n do
  local text, old = ARGV[2 * k + 3], had[k]
  local lines, left
  local mark, size = byte(text), #text
  if mark == 107 then -- 'k'
    lines, knowns[k] = sub(text, 2), true
  elseif mark == 108 then -- 'l'
    lines, left = sub(text, 32), sub(text, 2, 31)
  elseif size == 30 then
    left = text
  elseif mark then
    lines = text
  end
  if not old then
    changed[k] = lines
  elseif not lines then
    releaseAll(old, left or ARGV[1])
    gone[#gone + 1] = places[k]
  elseif lines ~= old then
    if identify(old) == identify(lines) then
      compare(k, old, lines, left or ARGV[1])
    else
      releaseAll(old, left or ARGV[1])
      changed[k] = lines
    end
  end
end

if size > 0 and next(changed) then
  released = {}
  for i = 1, size, 2 do released[match(fields[i + 1], '^%S+ (%S+)')] = fields[i] end
end
local set, m = {}, 0
for k, lines in pairs(changed) do
  local known = knowns[k]
  if type(lines) == 'table' then
    for j = 1, #lines do
      local x = lines[j]
      lines[j] = x.new and allocate(x.line, known, j == 1) or x.line
    end
    lines = table.concat(lines, '\n')
  elseif find(lines, '\n', 1, true) then
    local list = {}
    for line in each(lines) do list[#list + 1] = allocate(line, known, #list == 0) end
    lines = table.concat(list, '\n')
  else
    lines = allocate(lines, known, true)
  end
  set[m + 1], set[m + 2], m = places[k], lines, m + 2
end

local function append(first, from)
  return redis.pcall('XADD', log, 'MAXLEN', '~', ARGV[3], '*', 'first', first,
    unpack(fields, from, math.min(from + 31, size)))
end
local count = size / 2
for from = 1, size, 32 do
  local first = total + (from + 1) / 2
  local id = append(first, from)
  if type(id) == 'table' then
    if sub(id.err, 1, 3) == 'OOM' then return id end
    call('UNLINK', log)
    call('HSET', head, 'epoch', ARGV[2])
    append(first, from)
  end
end
local bindings = tonumber(state[4])
if m > 0 then bindings = bindings + call('HSET', blocks, unpack(set)) end
if #gone > 0 then bindings = bindings - call('HDEL', blocks, unpack(gone)) end
if count > 0 or m > 0 then
  call('HSET', head, 'events', total + count, 'latest', latest, 'bindings', bindings)
end
return anew
`)
