package testenv

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestSetupInstallsWhatTestsNeed: `make test` installs or loads all that
// Require asks for.
func TestSetupInstallsWhatTestsNeed(t *testing.T) {
	installed, loaded := setup(t)
	for _, thing := range things {
		if module, ok := strings.CutPrefix(thing.from, "kernel module "); ok {
			if !slices.Contains(loaded, module) {
				t.Errorf("%s: the module %s is not loaded", thing.name, module)
			}
			continue
		}
		switch pkg, ok := installed[thing.name]; {
		case !ok:
			t.Errorf("%s is not installed", thing.name)
		case thing.from != "" && thing.from != "package "+pkg:
			t.Errorf("%s is of %s, said to be of %s", thing.name, pkg, thing.from)
		}
	}
}

// setup reads the two lists of setup-debian.sh: packages, by command or file, and modules.
func setup(t *testing.T) (installed map[string]string, loaded []string) {
	t.Helper()
	script, err := os.ReadFile("../../scripts/setup-debian.sh")
	if err != nil {
		t.Fatal(err)
	}
	list := func(name string) (words []string) {
		_, rest, _ := strings.Cut(string(script), "\n"+name+"=(\n")
		body, _, _ := strings.Cut(rest, "\n)")
		for line := range strings.Lines(body) {
			line, _, _ = strings.Cut(line, "#")
			words = append(words, strings.Fields(line)...)
		}
		return words
	}
	installed = map[string]string{}
	for _, entry := range list("needed") {
		name, pkg, _ := strings.Cut(entry, ":")
		installed[name] = pkg
	}
	if strings.Contains(string(script), "\nunpacked="+SyslogNGRoot+"\nunpacked_packages=(syslog-ng-core ") {
		installed[SyslogNGRoot+"/usr/sbin/syslog-ng"] = "syslog-ng-core"
	}
	return installed, list("modules")
}

// TestWhatIsLackingIsNamed: the missing things are named, with their origin.
func TestWhatIsLackingIsNamed(t *testing.T) {
	before := things
	t.Cleanup(func() { things = before })
	things = []thing{
		{Nft, "/nonexistent/protocols", "package netbase"}, {Nft, "no-such-command", ""},
		{Redis, "other-command", ""}, {Nft, "/", "nobody"},
	}
	want := []string{"/nonexistent/protocols (package netbase)", "no-such-command"}
	if got := lacking(Nft); !slices.Equal(got, want) {
		t.Errorf("lacking: %q, want %q", got, want)
	}
}
