package faults

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"

	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/rig"
)

func (w *world) nft(ctx context.Context, command string) error {
	_, err := w.Lab.CGN.Output(ctx, "nft", command)
	return err
}

// deleteTable has the effect of a restart of the distribution's nftables service.
func deleteTable(ctx context.Context, w *world) error { return w.nft(ctx, "delete table ip sessiond") }

func changeRules(ctx context.Context, w *world) error {
	changes := []string{
		"insert rule ip sessiond forward counter accept",
		"flush chain ip sessiond from_inside",
		"flush table ip sessiond",
		"add chain ip sessiond extra { type filter hook forward priority 5; }; add rule ip sessiond extra counter drop",
		"flush chain ip sessiond guard; delete chain ip sessiond guard",
		"add element ip sessiond inside_prefixes { 172.16.0.0/12 }",
	}
	return w.nft(ctx, changes[w.faultRNG.IntN(len(changes))])
}

// changeElements changes gate, block and the maps of mappings like a misbehaving program. The
// chosen element may be missing, or exist already; then the command does nothing.
func changeElements(ctx context.Context, w *world) error {
	switch w.faultRNG.IntN(6) {
	case 0:
		return errors.Join(w.nft(ctx, "flush map ip sessiond gate"), w.nft(ctx, "flush map ip sessiond block"))
	case 1:
		return errors.Join(w.nft(ctx, "flush map ip sessiond static_in"), w.nft(ctx, "flush map ip sessiond static_out"))
	}
	for range 4 {
		l := w.model.lines[w.faultRNG.IntN(len(w.model.lines))]
		foreign := fmt.Sprintf("%s : %s . 64000-64063", l.inside, defaultGroup.outside.Addr())
		protocol := []string{"tcp", "udp"}[w.faultRNG.IntN(2)]
		public := fmt.Sprintf("%s . %s . %d", protocol, l.group.outside.Addr(), firstStatic+w.faultRNG.IntN(3))
		private := fmt.Sprintf("%s . %s . %d", protocol, l.inside, mappedPort+w.faultRNG.IntN(3))
		changes := []string{
			fmt.Sprintf("delete element ip sessiond gate { %s }", l.inside),
			fmt.Sprintf("delete element ip sessiond block { %s }", l.inside),
			fmt.Sprintf("add element ip sessiond gate { %s : return }", l.inside),
			fmt.Sprintf("add element ip sessiond block { %s }", foreign),
			fmt.Sprintf("delete element ip sessiond block { %s }; add element ip sessiond block { %s }", l.inside, foreign),
			fmt.Sprintf("delete element ip sessiond static_in { %s }", public),
			fmt.Sprintf("delete element ip sessiond static_out { %s }", private),
			fmt.Sprintf("add element ip sessiond static_in { %s : %s . %d }", public, l.inside, mappedPort+1),
			fmt.Sprintf("delete element ip sessiond static_in { %s }; add element ip sessiond static_in { %s : %s . %d }", public, public, l.inside, mappedPort),
			fmt.Sprintf("add element ip sessiond static_out { %s : %s . %d }", private, l.group.outside.Addr(), lastStatic),
		}
		_ = w.nft(ctx, changes[w.faultRNG.IntN(len(changes))])
	}
	return nil
}

// ownTable replaces sessiond's table by one that only its owner may change: all changes by
// sessiond then fail with EPERM. The table disappears with its owner.
func ownTable(ctx context.Context, w *world) error {
	cmd := exec.Command("nsenter", "--net="+w.Lab.CGN.Path(), "nft", "-i")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if w.owner, err = rig.Run(cmd); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdin, "delete table ip sessiond; add table ip sessiond { flags owner; }"); err != nil {
		return err
	}
	return w.Until(ctx, "the table to have another owner", func() (bool, error) {
		out, err := w.Lab.CGN.Output(ctx, "nft", "list", "tables", "ip")
		if err != nil || !strings.Contains(string(out), "sessiond") {
			return false, err
		}
		err = w.nft(ctx, "add chain ip sessiond tried")
		return err != nil && strings.Contains(err.Error(), "not permitted"), nil
	})
}

func disownTable(_ context.Context, w *world) error { return w.owner.Kill() }

func deleteRoute(ctx context.Context, w *world) error {
	_, err := w.Lab.CGN.Output(ctx, "ip", "route", "del", "blackhole", defaultGroup.outside.String())
	return err
}

// injectEntries makes entries of addresses that are not online, and outside of the block of
// those that are.
func injectEntries(ctx context.Context, w *world) error {
	for i := range 5 {
		l := w.model.lines[w.faultRNG.IntN(len(w.model.lines))]
		port := 60000 + i
		args := fmt.Sprintf("-I -p udp -s %s -d %s --sport 5000 --dport %d -r %s -q %s --reply-port-src %d --reply-port-dst 9999 -t 120",
			l.inside, w.Lab.Remotes[0], port, w.Lab.Remotes[0], defaultGroup.outside.Addr(), port)
		_, err := w.Lab.CGN.Output(ctx, "conntrack", strings.Fields(args)...)
		if err != nil && !strings.Contains(err.Error(), "exists") {
			return err
		}
	}
	return nil
}

func flushConntrack(ctx context.Context, w *world) error {
	_, err := w.Lab.CGN.Output(ctx, "conntrack", "-F")
	return err
}

// tableSize exceeds the kernel's default limit of entries.
const tableSize = 300_000

// flooding bounds the memory of full tables: one world at a time has one.
var flooding sync.Mutex

// fillTable fills the conntrack table of the CGN, so that no new entry can begin.
func fillTable(_ context.Context, w *world) error {
	flooding.Lock()
	flood, err := conntracktest.NewFlood(w.Lab.CGN.Path())
	if err != nil {
		flooding.Unlock()
		return err
	}
	w.flood = flood
	full, err := w.flood.Rise(tableSize)
	if err == nil && !full {
		w.logf("net.netfilter.nf_conntrack_max is above %d, the table did not get full", tableSize)
	}
	return err
}

func drainTable(ctx context.Context, w *world) error {
	err := w.ebb()
	if !w.overrun {
		return err
	}
	w.overrun = false
	return errors.Join(err, w.Daemon.Resume(), w.Until(ctx, "sessiond to notice the loss of events", func() (bool, error) {
		return strings.Contains(w.Daemon.Log(), "conntrack: events were lost"), nil
	}))
}

// ebb removes the entries of a flood, if there is one.
func (w *world) ebb() error {
	if w.flood == nil {
		return nil
	}
	defer flooding.Unlock()
	err := errors.Join(w.flood.Ebb(), w.flood.Close())
	w.flood = nil
	return err
}

// overrunEvents stops sessiond and makes more events than its socket holds.
func overrunEvents(ctx context.Context, w *world) error {
	w.overrun = true
	if err := w.Daemon.Pause(); err != nil {
		return err
	}
	return fillTable(ctx, w)
}
