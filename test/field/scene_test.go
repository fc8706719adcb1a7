package field

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// A scene is one situation: NASes, subscribers and steps. It has addresses and NASes of its
// own, so that many scenes run side by side in one world.
type scene struct {
	name   string
	number int
	inside netip.Prefix
	steps  []step
}

// A step is one action and its expected result.
type step struct {
	what    string
	pause   time.Duration       // wait before the step
	restart bool                // restart the daemon before; the same step in all scenes of a play
	send    *packet             // packet to send, unless do is set
	to      func(*world) string // destination; nil for the daemon's first address
	do      func(*world)
	verdict string // of the packet
	online  []session
}

// A play is a table of scenes.
type play struct {
	w      *world
	scenes []*scene
	count  int // number of scenes so far
}

func (p *play) scene(name string, script func(x *scene) []step) {
	x := &scene{name: name, number: p.count, inside: p.w.inside}
	p.w.inside = netip.PrefixFrom(next24(p.w.inside.Addr()), 24)
	p.count++
	x.steps = script(x)
	p.scenes = append(p.scenes, x)
}

func next24(a netip.Addr) netip.Addr {
	b := a.As4()
	if b[2]++; b[2] == 0 {
		b[1]++
	}
	return netip.AddrFrom4(b)
}

// bng returns a NAS of the scene, with a right clock that it reports.
func (x *scene) bng(name string) bng {
	return bng{name: fmt.Sprintf("%s-%d", name, x.number), source: viaBNG1, stamps: true, delays: true}
}

// addr returns the nth address of the scene.
func (x *scene) addr(n byte) netip.Addr {
	b := x.inside.Addr().As4()
	b[3] = n
	return netip.AddrFrom4(b)
}

// session returns a session of the scene at its nth address.
func (x *scene) session(user, id string, n byte) session {
	return session{id: fmt.Sprintf("%s-%d", id, x.number), user: fmt.Sprintf("%s-%d", user, x.number), inside: x.addr(n), began: new(time.Time)}
}

// sent returns a step that sends a packet with the expected verdict, after which the given
// sessions are online.
func sent(what string, p *packet, verdict string, online ...session) step {
	return step{what: what, send: p, verdict: verdict, online: online}
}

// done returns a step that calls a function, after which the given sessions are online.
func done(what string, do func(*world), online ...session) step {
	return step{what: what, do: do, online: online}
}

// after adds a wait before the step.
func (s step) after(pause time.Duration) step {
	s.pause = pause
	return s
}

// restarted makes the daemon be killed and started again before the step.
func (s step) restarted() step {
	s.restart = true
	return s
}

// elsewhere sends the packet to the second address of the daemon.
func (s step) elsewhere() step {
	s.to = func(w *world) string {
		addresses := w.Daemon.Listening()
		if len(addresses) != 2 {
			w.t.Fatalf("sessiond listens at %v, want two addresses", addresses)
		}
		return addresses[1]
	}
	return s
}

// run plays all scenes, the nth step of each before the next of any, so that they share the
// waits. After each round it checks the online sessions.
func (p *play) run() {
	p.w.t.Helper()
	for n := 0; ; n++ {
		var pause time.Duration
		restart, over := false, true
		for _, x := range p.scenes {
			if n < len(x.steps) {
				over = false
				pause, restart = max(pause, x.steps[n].pause), restart || x.steps[n].restart
			}
		}
		if over {
			return
		}
		p.w.pass(pause)
		if restart {
			p.w.restart()
		}
		for _, x := range p.scenes {
			if n < len(x.steps) {
				x.play(p.w, &x.steps[n])
			}
		}
		p.check(n)
	}
}

func (x *scene) play(w *world, s *step) {
	w.t.Helper()
	if s.do != nil {
		s.do(w)
		w.newVerdicts()
		return
	}
	server := w.Daemon.RADIUS
	if s.to != nil {
		server = s.to(w)
	}
	if err := rig.SendTo(w.ctx, server, s.send.bng.source+":0", s.send.now()); err != nil {
		w.t.Fatalf("%s: %s: %v", x.name, s.what, err)
	}
	if got := strings.Join(w.newVerdicts(), " "); !slices.Contains(strings.Split(s.verdict, "|"), got) {
		w.t.Errorf("%s: %s: %q, want %q", x.name, s.what, got, s.verdict)
	}
}

// check waits until in every scene the expected sessions are online after its nth step. A
// scene that fails is over.
func (p *play) check(n int) {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.w.ctx, within)
	defer cancel()
	var wrong map[*scene]string
	err := p.w.awaitSwept(ctx)
	if err == nil {
		err = p.w.Until(ctx, "all to be online who should be", func() (bool, error) {
			online, err := p.w.online(ctx)
			if err != nil {
				return false, err
			}
			wrong = p.differences(n, online)
			return len(wrong) == 0, nil
		})
	}
	if err != nil && len(wrong) == 0 {
		p.w.t.Fatal(err)
	}
	for x, what := range wrong {
		p.w.t.Errorf("%s: after step %d, %s: %s", x.name, n+1, x.steps[n].what, what)
		p.scenes = slices.DeleteFunc(p.scenes, func(y *scene) bool { return y == x })
	}
}

func (p *play) differences(n int, online map[netip.Addr]string) map[*scene]string {
	wrong := map[*scene]string{}
	for _, x := range p.scenes {
		if n >= len(x.steps) {
			continue
		}
		want, got := map[netip.Addr]string{}, map[netip.Addr]string{}
		for _, s := range x.steps[n].online {
			want[s.inside] = s.String()
		}
		for inside, who := range online {
			if x.inside.Contains(inside) {
				got[inside] = who
			}
		}
		if !maps.Equal(got, want) {
			wrong[x] = fmt.Sprintf("online %v, want %v", got, want)
		}
	}
	return wrong
}
