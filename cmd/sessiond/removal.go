package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/netns"
)

// printRemoval prints a shell script that takes from the kernel what sessiond leaves there: the
// table, the blackhole routes and the barrier.
func printRemoval(c config.Config, stdout, stderr io.Writer) int {
	if c.NAT.Backend == backendMemory {
		fmt.Fprintln(stderr, "sessiond: nat.backend is memory: nothing is in the kernel")
		return exitFailed
	}
	shell := "sh"
	if c.NAT.NetNS != "" {
		shell = "nsenter --net=" + quoted(netns.Path(c.NAT.NetNS)) + " sh"
	}
	fmt.Fprintf(stdout, removalScript, shell, quoted(c.NAT.Table))
	return exitDone
}

// quoted quotes a word for the shell.
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// removalScript has the numbers of nftnat.RouteProtocol and of the barrier's preference.
const removalScript = `#!/bin/sh
# Takes from the kernel what sessiond leaves there. All sessions of subscribers end, and a machine
# that forwards sends their packets out untranslated. Before: sysctl -w net.ipv4.ip_forward=0, and
# systemctl disable --now sessiond sessiond-barrier
exec %s -s -- %s <<'END'
failed=0
if nft list table ip "$1" >/dev/null 2>&1; then
	nft delete table ip "$1" || failed=1
fi
ip route flush proto 93 || failed=1
for interface in $(ip -o link show | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
	if tc filter show dev "$interface" egress 2>/dev/null | grep -q 'pref 93 bpf'; then
		tc filter del dev "$interface" egress pref 93 || failed=1
	fi
done
exit $failed
END
`
