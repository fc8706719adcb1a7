// Package testenv says what a test needs of its machine, and starts it.
package testenv

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A Need is something that not every machine has.
type Need uint

// What tests may need.
const (
	Root      Need = 1 << iota // root, for namespaces and netfilter
	Redis                      // the redis-server command
	Nft                        // the nft command
	Conntrack                  // the conntrack command
	Radclient                  // the radclient command (freeradius-utils)
)

var commands = []struct {
	need Need
	name string
}{{Redis, "redis-server"}, {Nft, "nft"}, {Conntrack, "conntrack"}, {Radclient, "radclient"}}

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
	for _, c := range commands {
		if needs&c.need == 0 {
			continue
		}
		if _, err := exec.LookPath(c.name); err != nil {
			missing = append(missing, c.name)
		}
	}
	return missing
}
