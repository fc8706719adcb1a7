package manpage

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/testenv"
)

// shown returns a page as a terminal shows it, without styles.
func shown(t *testing.T, p *Page) string {
	t.Helper()
	testenv.Require(t, testenv.Mandoc)
	lint := exec.Command("mandoc", "-T", "lint", "-W", "warning")
	lint.Stdin = strings.NewReader(p.String())
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
	cmd := exec.Command("mandoc", "-T", "ascii", "-O", "width=200")
	cmd.Stdin = strings.NewReader(p.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var plain []byte
	for i := 0; i < len(out); i++ {
		if i+1 < len(out) && out[i+1] == '\b' { // bold is a letter over itself
			i++
			continue
		}
		plain = append(plain, out[i])
	}
	return string(plain)
}

// TestTextStaysAsItIs: no text is a request, or an escape.
func TestTextStaysAsItIs(t *testing.T) {
	t.Parallel()
	p := New(Head{Name: "x", Section: 1, Summary: "y", Version: "1", Date: "2026-01-02"})
	p.Section("A \"B\"")
	texts := []string{`.SH no request`, `'tis`, `a\fBb\e`, "--flag `x` ^~", "  kept   as it is"}
	p.Text(strings.Join(texts, "\n\n"))
	p.Item([]string{"--one X", "--two"}, ".Explained\n\nAnd more")
	p.Lines(".x", "'y")
	got := shown(t, p)
	for _, want := range append(texts, `A "B"`, "--one X", "--two", ".Explained", "And more", ".x", "'y") {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s\nof\n%s", want, got, p)
		}
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	p := New(Head{Name: "x", Section: 5, Summary: "y", Date: "2026-01-02"})
	p.Section("DESCRIPTION")
	WriteReference(p, `# About it.
#
#   sessiond --check

# The first.
one: 1 # default; or 2

list:
  # Its name.
  - name: a # required
    # A or B:
    #   a  the first
    sub:
      # No default.
      # mode: slow
      # Two of one kind.
      x: "" # default
      y: [1, 2]
    after: {a: b}
`)
	got := strings.Join(strings.Fields(shown(t, p)), " ")
	for _, want := range []string{
		"About it. sessiond --check KEYS one one: 1 (default; or 2) The first.",
		"list list[].name: a (required) Its name.",
		"list[].sub: A or B: a the first",
		"list[].sub.mode: slow No default.",
		`list[].sub.x: "" (default) list[].sub.y: [1, 2] Two of one kind.`,
		"list[].after: {a: b}",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestPagesAreWhole: the page of the configuration has each key of the reference, and that of the
// daemon its flags.
func TestPagesAreWhole(t *testing.T) {
	t.Parallel()
	reference, err := os.ReadFile("../../sessiond.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page := shown(t, Configuration("v1", "2026-01-02", string(reference)))
	keys := 0
	for line := range bytes.Lines(reference) {
		if m := keyLine.FindSubmatch(bytes.TrimRight(line, "\n")); m != nil {
			keys++
			if !strings.Contains(page, string(m[3])+":") && !strings.Contains(page, "\n   "+string(m[3])+"\n") {
				t.Errorf("no key %s", m[3])
			}
		}
	}
	if keys < 80 {
		t.Errorf("%d keys", keys)
	}
	for _, want := range []string{"radius.clients[].secret: testing123", "radius.clients[].realm: core", "groups[].guard.window: 15m (default)", "settings.tcp_partial_open: 240s"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	help := "Usage of sessiond:\n  -check\n    \tvalidate it\n  -config FILE\n    \tconfiguration FILE (required)\n"
	page = shown(t, Daemon("v1", "2026-01-02", help))
	for _, want := range []string{"--check", "validate it", "--config FILE", "EXIT STATUS", "SIGHUP", "radius.clients, grpc.roles and groups"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
}
