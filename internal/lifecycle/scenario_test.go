package lifecycle

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

var update = flag.Bool("update", false, "write the effects that the scenarios have into their files; read the difference")

// TestScenarios plays the files of testdata. A line that is not indented is an
// input; the indented lines after it are all of its effects, in order.
// testdata/README.md explains the inputs.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(text), "# ") {
				t.Error("the file does not begin with a header that says why")
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("got\n%s", firstDifference(got, string(text)))
			}
		})
	}
}

// firstDifference returns the first line that differs, with those before it.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	i := 0
	for i < min(len(g), len(w)) && g[i] == w[i] {
		i++
	}
	at := func(lines []string) string {
		if i < len(lines) {
			return lines[i]
		}
		return "(end)"
	}
	return fmt.Sprintf("%s\n%s\nwant\n%s", strings.Join(g[max(0, i-5):i], "\n"), at(g), at(w))
}

// play returns the text with the effects of its inputs.
func play(t *testing.T, text string) string {
	t.Helper()
	p := newPlayer(t)
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "  "):
			continue // an effect, written again below
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
		default:
			fmt.Fprintln(&out, line)
			p.input(line)
			for _, effect := range p.take() {
				fmt.Fprintln(&out, "  "+effect)
			}
			if err := p.engine.Check(); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	return out.String()
}

// player is a Machine, with executors that work on command.
type player struct {
	t        *testing.T
	m        *Machine
	engine   *lsn.Engine
	group    *Group
	began    time.Time
	now      time.Time
	entry    int
	sessions map[netip.Addr]int

	opening map[*Slot]uint64      // by slot, the tenure whose gate is being opened
	served  map[*Slot]servedBlock // as the walk has seen it

	told   []string
	writes []Write
	unsaid []Write // writes that are done, and not reported yet
	opens  []Work
	closes []Work
	reaps  []Work
	asks   []*Drain
	parts  []*Part

	entries map[*Slot]nat.Entry      // by slot, as its work was queued
	kernel  map[netip.Addr]nat.Entry // programmed last

	ports map[netip.Addr][]nat.Session // that Used is told of
}

// Two outside blocks, so that the pool is exhausted soon.
var scenarioGroup = lsn.GroupConfig{
	Name: "g", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
	Outside: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}, FirstPort: 1024, LastPort: 3071, BlockSize: 1024,
	Hold: 2 * time.Minute, Grace: 30 * time.Second, GraceCauses: []uint32{2},
	Static: lsn.StaticPorts{First: 60000, Last: 60099},
}

func newPlayer(t *testing.T) *player {
	t.Helper()
	engine, err := lsn.New([]lsn.GroupConfig{scenarioGroup})
	if err != nil {
		t.Fatal(err)
	}
	p := &player{
		t: t, engine: engine, began: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), sessions: map[netip.Addr]int{}, opening: map[*Slot]uint64{}, served: map[*Slot]servedBlock{}, entries: map[*Slot]nat.Entry{}, kernel: map[netip.Addr]nat.Entry{}, ports: map[netip.Addr][]nat.Session{},
		group: NewGroup(scenarioGroup, guard.Limits{}),
	}
	p.now = p.began
	p.m = New(engine, p, func(inside netip.Addr) int { return p.sessions[inside] })
	p.m.Groups().Add(p.group)
	p.m.SetRemoval(inspect.RemovalOn)
	return p
}

func (p *player) take() []string {
	told := p.told
	p.told = nil
	return told
}

func (p *player) tell(format string, args ...any) {
	p.told = append(p.told, fmt.Sprintf(format, args...))
}

// input executes one line: its time, a verb, and words.
func (p *player) input(line string) {
	words := strings.Fields(line)
	after, err := time.ParseDuration(words[0])
	if err != nil || len(words) < 2 {
		p.t.Fatalf("%q: write the time since the beginning, and an input", line)
	}
	p.now = p.began.Add(after)
	verb, named, args := words[1], map[string]string{}, []string(nil)
	for _, w := range words[2:] {
		if name, value, ok := strings.Cut(w, "="); ok {
			named[name] = value
		} else {
			args = append(args, w)
		}
	}
	inputs := map[string]func(args []string, named map[string]string){
		"removal": p.removal, "start": p.start, "interim": p.interim, "delete": p.deleted, "stop": p.stop,
		"stored": p.stored, "programmed": p.programmed, "closed": p.closed, "reaped": p.reaped, "executors": p.executors,
		"sessions": p.setSessions, "asked": p.asked, "tick": p.tick, "guard": p.guard, "gone": p.gone,
		"adopt-entry": p.adoptEntry, "adopt-stored": p.adoptStored, "claim": p.claim, "claimed": p.claimed, "step": p.step, "stray": p.stray,
		"pool": p.pool, "evict": p.evict, "map": p.makeMapping, "unmap": p.endMapping,
		"group": p.regroup, "ports": p.setPorts, "look": p.look, "vacant": p.vacant,
	}
	do := inputs[verb]
	if do == nil {
		p.t.Fatalf("%q: there is no input %q", line, verb)
	}
	do(args, named)
}

func (p *player) addr(args []string) netip.Addr {
	p.t.Helper()
	if len(args) == 0 {
		p.t.Fatal("an inside address is missing")
	}
	return netip.MustParseAddr("100.64.0." + args[0])
}

func (p *player) number(text string) int {
	p.t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *player) duration(text string) time.Duration {
	p.t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p *player) removal(args []string, _ map[string]string) {
	mode, err := inspect.ParseRemovalMode(args[0])
	if err != nil {
		p.t.Fatal(err)
	}
	p.m.SetRemoval(mode)
	for _, inside := range slices.SortedFunc(p.m.Drains().Addresses(), netip.Addr.Compare) {
		p.m.Step(p.m.Slot(inside), p.now)
	}
}

// record returns a record of an address, a user and a session.
func (p *player) record(args []string, named map[string]string) subscriber.Record {
	r := subscriber.Record{
		Key: subscriber.Key{Group: "g", Inside: p.addr(args)}, UserName: args[1], StartedAt: p.now,
		SessionID: subscriber.SessionID{Client: "bng", NAS: "nas-" + args[2], AcctSessionID: args[2]}, Version: p.version(named),
	}
	if text := named["expires"]; text != "" {
		r.ExpiresAt = p.now.Add(p.duration(text))
	}
	if named["held"] != "" {
		r.RemovalHeld = subscriber.ReasonExpired
	}
	return r
}

// version returns that of the next entry of the feed, or of the named one.
func (p *player) version(named map[string]string) string {
	entry := named["entry"]
	if entry == "" {
		p.entry++
		entry = fmt.Sprint(p.entry)
	}
	return fmt.Sprintf("%d-%s", p.now.UnixMilli(), entry)
}

func (p *player) apply(c subscriber.Change, r subscriber.Record) {
	c.ID, c.Record = subscriber.ParseVersion(r.Version), r.Pack()
	p.m.Apply(&c, p.now)
}

func (p *player) start(args []string, named map[string]string) {
	p.apply(subscriber.Change{Kind: subscriber.Created}, p.record(args, named))
}

// interim applies an update of counters alone, or of the whole record.
func (p *player) interim(args []string, named map[string]string) {
	if len(args) == 1 {
		r := subscriber.Record{Key: subscriber.Key{Group: "g", Inside: p.addr(args)}, Counters: subscriber.Counters{InputOctets: 1}, Version: p.version(named)}
		p.apply(subscriber.Change{Kind: subscriber.Updated, Partial: true}, r)
		return
	}
	p.apply(subscriber.Change{Kind: subscriber.Updated}, p.record(args, named))
}

func (p *player) stop(args []string, named map[string]string) {
	r := subscriber.Record{Key: subscriber.Key{Group: "g", Inside: p.addr(args)}, Version: p.version(named)}
	p.apply(subscriber.Change{
		Kind: subscriber.Deleted, Partial: true, End: subscriber.End{Reason: subscriber.ReasonStop, Cause: uint32(p.number(cmp.Or(named["cause"], "1")))},
	}, r)
}

func (p *player) deleted(args []string, named map[string]string) {
	reason, err := subscriber.ParseReason(args[1])
	if err != nil {
		p.t.Fatal(err)
	}
	r := p.m.Slot(p.addr(args)).Record()
	r.Version = p.version(named)
	p.apply(subscriber.Change{Kind: subscriber.Deleted, End: subscriber.End{Reason: reason}}, r)
}

func (p *player) stored([]string, map[string]string) {
	writes := p.writes
	p.writes = nil
	for i := range writes {
		p.unsaid = writes[i+1:]
		p.m.Stored(&writes[i], p.now)
	}
}

func (p *player) programmed([]string, map[string]string) { p.program(&p.opens, p.m.Programmed) }

func (p *player) closed(_ []string, named map[string]string) {
	p.program(&p.closes, func(s *Slot, now time.Time) { p.m.Closed(s, named["bypassed"] != "", now) })
}

// program makes the kernel's entries as they were when the work was queued.
func (p *player) program(works *[]Work, report func(*Slot, time.Time)) {
	for _, w := range *works {
		p.kernel[w.Inside] = p.entries[w.Slot]
	}
	p.done(works, report)
}

// portMapping is a mapping of an outside port to the inside port of the same number, of nobody yet.
func portMapping(port int) nat.Mapping {
	return nat.Mapping{
		Group: "g", Kind: nat.MappingStatic, InsidePort: nat.Port(port),
		Outside: nat.Endpoint{Protocol: nat.ProtocolTCP, AddrPort: netip.AddrPortFrom(scenarioGroup.Outside[0].Addr(), uint16(port))},
	}
}

// makeMapping maps an outside port to the inside port of the same number, of a user or of an
// address.
func (p *player) makeMapping(args []string, named map[string]string) {
	p.t.Helper()
	m := portMapping(p.number(args[0]))
	m.Owner.UserName = named["user"]
	if named["inside"] != "" {
		m.Owner.Inside = p.addr([]string{named["inside"]})
	}
	if p.group.Mappings.Put(m) {
		ForwardsOf(p.m).Changed(p.group, m.Owner, p.now)
	}
}

func (p *player) endMapping(args []string, _ map[string]string) {
	p.t.Helper()
	e := nat.Endpoint{Protocol: nat.ProtocolTCP, AddrPort: netip.AddrPortFrom(scenarioGroup.Outside[0].Addr(), uint16(p.number(args[0])))}
	if m, ok := p.group.Mappings.At(e); ok {
		p.group.Mappings.Remove(e)
		ForwardsOf(p.m).Changed(p.group, m.Owner, p.now)
	}
}

func (p *player) reaped([]string, map[string]string) {
	p.done(&p.reaps, func(s *Slot, now time.Time) {
		n := p.sessions[s.Inside()]
		p.sessions[s.Inside()] = 0
		p.m.Reaped(s, &nat.Reaped{Inside: s.Inside(), Deleted: n, At: now}, now)
	})
}

// done reports all queued work of an executor.
func (p *player) done(works *[]Work, report func(*Slot, time.Time)) {
	batch := *works
	*works = nil
	for _, w := range batch {
		report(w.Slot, p.now)
	}
}

// executors runs all executors until no work is queued.
func (p *player) executors([]string, map[string]string) {
	for len(p.writes)+len(p.opens)+len(p.closes)+len(p.reaps) > 0 {
		p.stored(nil, nil)
		p.closed(nil, nil)
		p.programmed(nil, nil)
		p.reaped(nil, nil)
	}
}

func (p *player) setSessions(args []string, _ map[string]string) {
	p.sessions[p.addr(args)] = p.number(args[1])
}

// regroup gives the group other ports, or subscribers more blocks.
func (p *player) regroup(_ []string, named map[string]string) {
	c := scenarioGroup
	c.LastPort = nat.Port(1024*(1+p.number(cmp.Or(named["blocks"], "2"))) - 1)
	c.MaxBlocks = p.number(cmp.Or(named["max"], "1"))
	if err := p.engine.Reconfigure([]lsn.GroupConfig{c}); err != nil {
		p.t.Fatal(err)
	}
}

// setPorts gives the address sessions in N ports of each named block, UDP by default: each to a
// remote endpoint of its own, or all to one.
func (p *player) setPorts(args []string, named map[string]string) {
	inside, list := p.addr(args), []nat.Session(nil)
	protocol := map[string]uint8{"": 17, "tcp": 6}[named["protocol"]]
	for block, n := range named {
		if block == "protocol" || block == "remotes" {
			continue
		}
		b := p.block(map[string]string{"block": block})
		for i := range p.number(n) {
			s := nat.Session{Protocol: protocol, Outside: netip.AddrPortFrom(b.Outside, uint16(b.First)+uint16(i)), Remote: netip.MustParseAddrPort("203.0.113.1:53")}
			if named["remotes"] != "one" {
				s.Remote = netip.AddrPortFrom(s.Remote.Addr(), s.Outside.Port())
			}
			list = append(list, s)
		}
	}
	p.ports[inside] = list
}

// look tells the life cycle of the address's ports, and when to look again.
func (p *player) look(args []string, _ map[string]string) {
	inside := p.addr(args)
	_, b, _, ok := p.m.Growths().Resizable(inside)
	if !ok {
		p.tell("no look at %s now", last(inside))
		return
	}
	u := NewPortUse(b)
	for i := range p.ports[inside] {
		u.Add(&p.ports[inside][i])
	}
	next, refused := p.m.Growths().Used(inside, u, p.now)
	if refused {
		next = p.m.Growths().Narrow(inside, u)
	}
	for _, part := range p.m.Growths().Parts(inside) {
		p.tell("new sessions to %v get ports %d-%d", part.Remote, part.Block.First, part.Block.Last)
	}
	p.tell("look again after %d sessions", next)
}

// vacant reports to all asked parts whether the address has a port there.
func (p *player) vacant([]string, map[string]string) {
	parts := p.parts
	p.parts = nil
	for _, x := range parts {
		used := slices.ContainsFunc(p.ports[x.Inside], func(s nat.Session) bool {
			return x.Block.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port()))
		})
		p.m.Growths().Vacated(x, !used, p.now)
	}
}

// asked reports to all asked drains whether the kernel has sessions left.
func (p *player) asked([]string, map[string]string) {
	asks := p.asks
	p.asks = nil
	for _, d := range asks {
		d.Answered()
		if p.sessions[d.Inside] == 0 {
			p.m.Emptied(d, p.now)
		} else if s := p.m.Slot(d.Inside); s != nil && s.Phase() == Draining {
			p.m.Step(s, p.now)
		}
	}
}

func (p *player) tick([]string, map[string]string) { p.m.Tick(p.now) }

func (p *player) guard(args []string, _ map[string]string) {
	p.group.Guard.SetLimits(guard.Limits{Minimum: p.number(args[0]), Removed: 0.0001, Window: time.Hour})
}

// gone asks the guard about a record that others removed, and ends it if it
// passes.
func (p *player) gone(args []string, _ map[string]string) {
	s := p.m.Slot(p.addr(args))
	passes, alarm := p.group.Passes(s, subscriber.ReasonRemovedInDatabase, p.now)
	p.tell("guard passes=%t alarm=%t", passes, alarm != nil)
	if passes {
		p.m.End(s, subscriber.ReasonRemovedInDatabase, p.now)
	}
}

// block returns the first or second block of the only outside address.
func (p *player) block(named map[string]string) nat.Block {
	first := nat.Port(1024 * p.number(cmp.Or(named["block"], "1")))
	return nat.Block{Outside: netip.MustParseAddr("198.51.100.1"), First: first, Last: first + 1023}
}

// stands returns the named record, as in the database.
func (p *player) stands(args []string, named map[string]string) *subscriber.Record {
	if named["user"] == "" {
		return nil
	}
	r := p.record([]string{args[0], named["user"], named["session"]}, named)
	return &r
}

func (p *player) binding(args []string, named map[string]string) (b nat.Binding) {
	if named["stored"] == "" {
		return b
	}
	r := subscriber.Record{Key: subscriber.Key{Group: "g", Inside: p.addr(args)}, UserName: named["stored"]}
	packed := r.Pack()
	b = nat.Binding{Group: "g", Blocks: nat.Blocks{Block: p.block(named)}, Holder: holderOf(&packed), State: nat.Active, AllocatedAt: p.began}
	if named["further"] != "" {
		b.Blocks, _ = b.With(p.block(map[string]string{"block": named["further"]}))
	}
	b.AcctSessionID = named["of"]
	if named["allocated"] != "" {
		b.AllocatedAt = p.began.Add(p.duration(named["allocated"]))
	}
	if named["first"] != "" {
		b.FirstAt = p.began.Add(p.duration(named["first"]))
	}
	if named["state"] == "held" {
		b.State, b.ReleasedAt, b.HoldUntil = nat.Held, p.began, p.began.Add(time.Minute)
	}
	return b
}

func (p *player) adoptEntry(args []string, named map[string]string) {
	e := nat.Entry{Inside: p.addr(args), Gate: nat.GateOpen, Block: p.block(named)}
	if named["has"] != "" {
		e.Block = p.block(map[string]string{"block": named["has"]})
	}
	if named["gate"] == "draining" {
		e.Gate = nat.GateDraining
	}
	if named["through"] != "" {
		m := portMapping(p.number(named["through"]))
		e.Forwards = nat.NewForwards([]nat.Forward{m.Forward()})
	}
	var further []nat.Block
	if named["sees"] != "" {
		further = []nat.Block{p.block(map[string]string{"block": named["sees"]})}
	}
	p.m.Adopt(p.group).Entry(e, p.binding(args, named), p.stands(args, named), further, p.now)
}

func (p *player) adoptStored(args []string, named map[string]string) {
	p.m.Adopt(p.group).Stored(p.binding(args, named), p.stands(args, named), p.now)
}

func (p *player) claim(args []string, named map[string]string) {
	p.m.Adopt(p.group).Claim(p.m.Slot(p.addr(args)), p.stands(args, named), named["suspect"] != "", p.now)
}

// claimed gives all adopted addresses their mappings.
func (p *player) claimed([]string, map[string]string) {
	for _, s := range p.m.Slots().All() {
		p.m.Adopt(p.group).Assign(s, p.now)
	}
}

func (p *player) step(args []string, _ map[string]string) { p.m.Step(p.m.Slot(p.addr(args)), p.now) }

// pool configures other outside prefixes.
func (p *player) pool(args []string, _ map[string]string) {
	c := scenarioGroup
	c.Outside = nil
	for _, text := range args {
		c.Outside = append(c.Outside, netip.MustParsePrefix(text))
	}
	if err := p.engine.Reconfigure([]lsn.GroupConfig{c}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *player) evict(args []string, _ map[string]string) {
	if s := p.m.Slot(p.addr(args)); s != nil {
		p.m.Evict(s, p.now)
	}
}

func (p *player) stray(args []string, named map[string]string) {
	b := p.block(named)
	p.m.Repairs().RemoveStray("g", nat.Entry{Inside: p.addr(args), Gate: nat.GateOpen, Block: nat.Block{Outside: b.Outside, First: nat.Port(b.First), Last: nat.Port(b.Last)}}, p.now)
}

// last returns the last octet of an inside address, as scenarios write it.
func last(inside netip.Addr) string { return fmt.Sprint(inside.As4()[3]) }

func ports(b nat.Blocks) string { return "ports " + b.Ports() }

// Store implements Effects.
func (p *player) Store(w Write) {
	toPlace := func(o Write) bool { return o.Binding.Place() == w.Binding.Place() }
	if again := slices.ContainsFunc(p.unsaid, toPlace) || slices.ContainsFunc(p.writes, toPlace); w.Again != again {
		p.t.Errorf("write of %s: Again is %t, want %t", ports(w.Binding.Blocks), w.Again, again)
	}
	p.writes = append(p.writes, w)
	if w.Remove {
		p.tell("store: %s are free", ports(w.Binding.Blocks))
		return
	}
	grace := ""
	if !w.Binding.GraceUntil.IsZero() {
		grace = fmt.Sprintf(", grace until %v", w.Binding.GraceUntil.Sub(p.began))
	}
	p.tell("store: %s of %s %s/%s %v%s", ports(w.Binding.Blocks), last(w.Binding.Inside), w.Binding.UserName, w.Binding.AcctSessionID, w.Binding.State, grace)
}

// Program implements Effects.
func (p *player) Program(w Work) {
	p.opens = append(p.opens, w)
	p.entries[w.Slot] = w.Slot.Wanted()
	p.tell("program %s: gate open, %s%s", last(w.Inside), ports(nat.Blocks{Block: w.Slot.block}), throughPorts(w.Slot.Wanted().Forwards))
}

// Close implements Effects.
func (p *player) Close(w Work) {
	p.closes = append(p.closes, w)
	p.entries[w.Slot] = w.Slot.Wanted()
	gate := map[nat.Gate]string{nat.GateClosed: "closed", nat.GateDraining: "draining", nat.GateOpen: "open"}[w.Slot.Wanted().Gate]
	p.tell("program %s: gate %s", last(w.Inside), gate)
}

// Reap implements Effects.
func (p *player) Reap(w Work) {
	p.reaps = append(p.reaps, w)
	p.tell("reap %s", last(w.Inside))
}

// AskIdle implements Effects.
func (p *player) AskIdle(d *Drain) {
	p.asks = append(p.asks, d)
	p.tell("ask whether %s has sessions", last(d.Inside))
}

// EndSessions implements Effects.
func (p *player) EndSessions(inside netip.Addr, through nat.Forwards) {
	p.tell("end the sessions of %s%s", last(inside), throughPorts(through))
}

// MappingsEnded implements Effects.
func (p *player) MappingsEnded(list []nat.Mapping) {
	for _, m := range list {
		p.tell("store the end of the mapping %d", m.Outside.Port())
	}
}

// throughPorts returns the outside ports of mappings, as scenarios write them.
func throughPorts(f nat.Forwards) (text string) {
	for one := range f.All() {
		text += fmt.Sprintf(" through %d", one.Outside.Port())
	}
	return text
}

// AskVacant implements Effects.
func (p *player) AskVacant(x *Part) {
	p.parts = append(p.parts, x)
	p.tell("ask whether %s has sessions in %s", last(x.Inside), ports(nat.Blocks{Block: x.Block}))
}

// LookUp implements Effects.
func (p *player) LookUp(k subscriber.Key, why subscriber.Reason) {
	p.tell("look up the record of %s, %v", last(k.Inside), why)
}

// WakeTimers implements Effects.
func (p *player) WakeTimers() { p.tell("wake the timers") }

// eventNames are the names of the API (EventKind).
var eventNames = map[inspect.EventKind]string{
	inspect.EventCreated: "CREATED", inspect.EventUpdated: "UPDATED", inspect.EventDeleted: "DELETED",
	inspect.EventBound: "BOUND", inspect.EventPending: "PENDING", inspect.EventDraining: "DRAINING",
	inspect.EventCut: "CUT", inspect.EventReaped: "REAPED", inspect.EventReleased: "RELEASED",
	inspect.EventGrace: "GRACE", inspect.EventObserved: "OBSERVED", inspect.EventRemovalHeld: "REMOVAL_HELD",
	inspect.EventLimitReached: "LIMIT_REACHED",
	inspect.EventBlockAdded:   "BLOCK_ADDED", inspect.EventBlockReturned: "BLOCK_RETURNED", inspect.EventBlockRefused: "BLOCK_REFUSED",
}

// Emit implements Effects.
func (p *player) Emit(t Transition) {
	inside := netip.Addr{}
	switch {
	case t.Record != nil:
		inside = t.Record.Inside()
	case t.Slot != nil:
		inside = t.Slot.Inside()
	default:
		inside = t.Binding.Inside
	}
	text := fmt.Sprintf("tell: %s %s", last(inside), eventNames[t.Kind])
	if t.Reason != subscriber.ReasonNone {
		text += fmt.Sprint(", ", t.Reason)
	}
	if t.Growth != "" {
		text += fmt.Sprint(", ", t.Growth)
	}
	if t.Kind == inspect.EventReaped {
		text += fmt.Sprintf(", %d sessions", t.Deleted)
	}
	if t.Outdated {
		text += fmt.Sprintf(", outdated, of user %q", t.Record.UserName())
	}
	p.tell("%s", text)
}

// Online implements Effects. Transitions show the online state already.
func (p *player) Online(string, int) {}

// Fault implements Effects.
func (p *player) Fault(what string, key subscriber.Key, err error) {
	p.tell("fault: %s of %s: %v", what, last(key.Inside), err)
}
