package lsn

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

var update = flag.Bool("update", false, "rewrite the expected output of the scenarios in testdata")

// TestScenarios runs the scenarios of testdata. A file is prose, then blocks of
// commands and their output:
//
//	> command
//	output
//
// Times are seconds since the scenario began. -update rewrites the output.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != string(text) && !*update {
				t.Errorf("got:\n%s\nwant:\n%s", got, text)
			}
		})
	}
}

// replay returns the text with the present output of its commands.
func replay(t *testing.T, text string) string {
	s := &story{}
	var out strings.Builder
	inOutput := false
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(line, "> ")
		switch {
		case ok:
			out.WriteString(line)
			out.WriteString(s.run(t, strings.Fields(command)))
			inOutput = true
		case strings.TrimSpace(line) == "" || !inOutput:
			out.WriteString(line)
			inOutput = false
		}
	}
	return out.String()
}

type story struct {
	engine *Engine
	config []GroupConfig
	now    time.Time
}

var storyBegin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// run executes one command, checks the invariants and returns the output.
func (s *story) run(t *testing.T, words []string) string {
	t.Helper()
	out := s.command(words)
	if s.engine != nil {
		if err := s.engine.Check(); err != nil {
			t.Fatalf("%v: %v", words, err)
		}
	}
	return out
}

func (s *story) command(words []string) string {
	args := words[1:]
	switch words[0] {
	case "group": // NAME key=value...: a group of the next engine or reconfiguration
		s.config = append(s.config, storyGroup(args))
		return ""
	case "start":
		return s.configure(func() (err error) { s.engine, err = New(s.config); s.now = storyBegin; return err })
	case "reconfigure":
		return s.configure(func() error { return s.engine.Reconfigure(s.config) })
	case "at": // SECONDS
		s.now = storyBegin.Add(time.Duration(number10(args[0])) * time.Second)
		freed, served := s.engine.Advance(s.now, nil, nil)
		return s.lines("freed", freed) + s.lines("served", served)
	case "next":
		next, ok := s.engine.Next()
		return fmt.Sprintln(s.seconds(next), ok)
	case "usage":
		var b strings.Builder
		for _, u := range s.engine.Usage() {
			fmt.Fprintf(&b, "%s %v: %d blocks, %d used, %d held, %d free; %d wait\n",
				u.Group, u.Outside, u.Total, u.Used, u.Held, u.Free, s.engine.Pending(u.Group))
		}
		return b.String()
	case "quarantine": // GROUP
		s.engine.Quarantine(words[1], s.now)
		blocks, until := s.engine.Quarantined(words[1])
		if blocks == 0 {
			return "none\n"
		}
		return fmt.Sprintf("%d blocks until %v\n", blocks, s.seconds(until))
	case "who": // OUTSIDE PORT
		b, ok := s.engine.AtOutside(netip.MustParseAddr(args[0]), nat.Port(number10(args[1])))
		if !ok {
			return "nobody\n"
		}
		return s.line(b)
	}
	return s.subscriber(words[0], args[0], netip.MustParseAddr(args[1]), args[2:])
}

// subscriber executes a command of the form: WORD GROUP INSIDE ...
func (s *story) subscriber(word, group string, inside netip.Addr, args []string) string {
	var b nat.Binding
	var err error
	switch word {
	case "allocate": // [IDENTITY]
		b, err = s.engine.Allocate(group, nat.Holder{Inside: inside, Identity: strings.Join(args, "")}, s.now)
	case "drain":
		b, err = s.engine.Drain(group, inside, s.now)
	case "resume":
		b, err = s.engine.Resume(group, inside)
	case "cut":
		b, err = s.engine.Cut(group, inside, s.now)
	case "hold":
		b, err = s.engine.Hold(group, inside, s.now)
	case "grow": // [FIRST-LAST], the ports that new sessions get, default the newest range
		return s.grow(group, inside, args)
	case "shrink":
		left, part, err := s.engine.Shrink(group, inside, s.now)
		if err != nil {
			return fmt.Sprintln("error:", err)
		}
		return s.line(left) + s.line(part)
	case "grace": // SECONDS, or - to remove it
		var until time.Time
		if args[0] != "-" {
			until = storyBegin.Add(time.Duration(number10(args[0])) * time.Second)
		}
		b, err = s.engine.SetGrace(group, inside, until)
	case "receipt": // ELEMENTS
		b, err = s.engine.SetReceipt(group, inside, nat.Receipt{CutAt: s.now, Elements: number10(args[0])})
	case "end": // cut and hold
		if _, err = s.engine.Cut(group, inside, s.now); err == nil {
			b, err = s.engine.Hold(group, inside, s.now)
		}
	case "forget":
		return fmt.Sprintln(s.engine.Forget(group, inside))
	case "restore": // OUTSIDE FIRST LAST[,FIRST-LAST...] STATE [IDENTITY]
		b = storyBinding(group, inside, args, s.now)
		err = s.engine.Restore(b)
	default:
		return "no such command\n"
	}
	if err != nil {
		return fmt.Sprintln("error:", err)
	}
	return s.line(b)
}

func (s *story) grow(group string, inside netip.Addr, args []string) string {
	live, _ := s.engine.Live(group, inside)
	within := live.Range()
	if len(args) > 0 {
		within = storyBlocks(live.Outside, args[0]).Block
	}
	g, err := s.engine.Grow(group, inside, within, s.now)
	if err != nil {
		return fmt.Sprintln("error:", err)
	}
	text := s.line(g.Binding)
	if g.InPlace() {
		text = fmt.Sprintf("%s, new sessions get %d-%d\n", strings.TrimSuffix(text, "\n"), g.Range().First, g.Range().Last)
	}
	if g.Regained.Group != "" {
		text += "regained " + s.line(g.Regained)
	}
	return text
}

func (s *story) configure(do func() error) string {
	err := do()
	s.config = nil
	if err != nil {
		return fmt.Sprintln("error:", err)
	}
	return ""
}

func storyGroup(args []string) GroupConfig {
	c := GroupConfig{Name: args[0], FirstPort: 1024, LastPort: 65535, BlockSize: 512, Hold: 120 * time.Second}
	for _, a := range args[1:] {
		key, v, _ := strings.Cut(a, "=")
		switch key {
		case "inside":
			c.Inside = prefixes(strings.Split(v, ",")...)
		case "outside":
			c.Outside = prefixes(strings.Split(v, ",")...)
		case "draining":
			c.Draining = prefixes(strings.Split(v, ",")...)
		case "ports":
			first, last, _ := strings.Cut(v, "-")
			c.FirstPort, c.LastPort = nat.Port(number10(first)), nat.Port(number10(last))
		case "block":
			c.BlockSize = number10(v)
		case "deterministic":
			c.Deterministic = v == "true"
		case "max":
			c.MaxBlocks = number10(v)
		case "hold":
			c.Hold = time.Duration(number10(v)) * time.Second
		}
	}
	return c
}

func storyBinding(group string, inside netip.Addr, args []string, now time.Time) nat.Binding {
	b := nat.Binding{
		Group:       group,
		Blocks:      storyBlocks(netip.MustParseAddr(args[0]), args[1]+"-"+args[2]),
		Holder:      nat.Holder{Inside: inside, Identity: strings.Join(args[4:], "")},
		AllocatedAt: now,
	}
	for state := nat.Active; state <= nat.Held; state++ {
		if state.String() == args[3] {
			b.State = state
		}
	}
	if b.State == nat.Held {
		b.HoldUntil = now.Add(60 * time.Second)
	}
	return b
}

func storyBlocks(outside netip.Addr, ports string) (blocks nat.Blocks) {
	for i, text := range strings.Split(ports, ",") {
		first, last, _ := strings.Cut(text, "-")
		b := nat.Block{Outside: outside, First: nat.Port(number10(first)), Last: nat.Port(number10(last))}
		if i == 0 {
			blocks.Block = b
			continue
		}
		var ok bool
		if blocks, ok = blocks.With(b); !ok {
			panic("blocks with common ports: " + ports)
		}
	}
	return blocks
}

func (s *story) lines(what string, bs []nat.Binding) string {
	var out strings.Builder
	for _, b := range bs {
		out.WriteString(what + " " + s.line(b))
	}
	return out.String()
}

func (s *story) line(b nat.Binding) string {
	line := fmt.Sprintf("%v %s %v:%s %v", b.Inside, b.Identity, b.Outside, b.Ports(), b.State)
	if b.State == nat.Held {
		line += fmt.Sprintf(" until %d", s.seconds(b.HoldUntil))
	}
	if !b.GraceUntil.IsZero() {
		line += fmt.Sprintf(", grace until %d", s.seconds(b.GraceUntil))
	}
	if b.Receipt != nil {
		line += fmt.Sprintf(", %d elements removed", b.Receipt.Elements)
	}
	return strings.Replace(line, "  ", " ", 1) + "\n"
}

func (s *story) seconds(t time.Time) int {
	if t.IsZero() {
		return 0
	}
	return int(t.Sub(storyBegin) / time.Second)
}

func number10(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
