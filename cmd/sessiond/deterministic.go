package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
)

// lookUp prints, from a configuration alone, the block of an inside address or the inside
// address of a public port (RFC 7422). It returns the exit code: exitFailed where no group in
// deterministic mode has it.
func lookUp(file, what string, stdout, stderr io.Writer) int {
	public, errPort := netip.ParseAddrPort(what)
	inside, errAddr := netip.ParseAddr(what)
	if errPort != nil && errAddr != nil {
		fmt.Fprintf(stderr, "sessiond: --deterministic: %q is neither an inside address nor a public address and port; write it such as 100.64.0.7 or 198.51.100.1:2048\n", what)
		return exitUsage
	}
	c, _, err := config.Load(file)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	groups := lsnGroups(c.Groups)
	if !slices.ContainsFunc(groups, func(g lsn.GroupConfig) bool { return g.Deterministic }) {
		fmt.Fprintf(stderr, "sessiond: no group of %s is in deterministic mode; the daemon knows: sessionctl binding %s\n", file, question(inside, what))
		return exitFailed
	}
	for i := range groups {
		g := &groups[i]
		f := g.Formula()
		if errPort == nil {
			inside = netip.Addr{}
			if g.Deterministic {
				inside, _ = f.Inside(public.Addr(), nat.Port(public.Port()))
			}
		}
		if b, ok := f.Block(inside); ok && g.Deterministic {
			fmt.Fprintf(stdout, "group %s: inside address %v has %v:%d-%d\n", g.Name, inside, b.Outside, b.First, b.Last)
			return exitDone
		}
		if errPort != nil && covers(g, inside) {
			fmt.Fprintf(stderr, "sessiond: group %s of %v is not in deterministic mode; sessionctl binding list --inside %v shows its block\n", g.Name, inside, inside)
			return exitFailed
		}
	}
	fmt.Fprintf(stderr, "sessiond: no group in deterministic mode has %s\n", what)
	return exitFailed
}

// question returns the arguments of sessionctl binding that ask the same of a daemon: about an
// inside address if that is valid, else about a public port.
func question(inside netip.Addr, what string) string {
	if inside.IsValid() {
		return "list --inside " + what
	}
	return "lookup " + what
}

func covers(g *lsn.GroupConfig, inside netip.Addr) bool {
	for _, p := range g.Inside {
		if p.Contains(inside) {
			return true
		}
	}
	return false
}
