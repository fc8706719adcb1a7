// Package testenv says what a test needs of its machine, and starts it.
package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A Need is something that not every machine has.
type Need uint

// What tests may need.
const (
	Root        Need = 1 << iota // root, for namespaces and netfilter
	Redis                        // the redis-server command
	Nft                          // the nft command
	Conntrack                    // the conntrack command
	Radclient                    // the radclient command (freeradius-utils)
	Radsecproxy                  // the radsecproxy command
	Freeradius                   // the freeradius command
	Pyrad                        // the pyrad library of Debian's own Python
	Tshark                       // the tshark, radsniff and tcpdump commands
	Ocserv                       // the ocserv command, and openconnect to dial it
)

// things are commands, or files by their absolute path.
var things = []struct {
	need Need
	name string
}{
	{Redis, "redis-server"},
	{Nft, "nft"},
	{Conntrack, "conntrack"},
	{Radclient, "radclient"},
	{Radsecproxy, "radsecproxy"},
	{Freeradius, "freeradius"},
	{Pyrad, "/usr/lib/python3/dist-packages/pyrad"},
	{Tshark, "tshark"}, {Tshark, "radsniff"}, {Tshark, "tcpdump"},
	{Ocserv, "ocserv"}, {Ocserv, "openconnect"},
}

// Require skips the test where the machine lacks what it needs, and fails it
// when CI is set: there a skip would hide a test that never runs.
func Require(t testing.TB, needs Need) {
	t.Helper()
	missing := lacking(needs)
	if len(missing) == 0 {
		return
	}
	reason := "this machine lacks " + strings.Join(missing, ", ")
	if os.Getenv("CI") != "" {
		t.Fatal(reason + ", and a skip is a failure when CI is set")
	}
	t.Skip(reason)
}

func lacking(needs Need) []string {
	var missing []string
	if needs&Root != 0 && os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, thing := range things {
		if needs&thing.need != 0 && !present(thing.name) {
			missing = append(missing, thing.name)
		}
	}
	return missing
}

func present(name string) bool {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return err == nil
	}
	_, err := exec.LookPath(name)
	return err == nil
}
