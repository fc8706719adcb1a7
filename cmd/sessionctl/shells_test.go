package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// installed returns a folder with the program, and its completion for a shell.
func installed(t *testing.T, shell string) (folder, script string) {
	t.Helper()
	testenv.Require(t, testenv.Completions)
	folder = t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(folder, "sessionctl")); err != nil {
		t.Fatal(err)
	}
	text := ctl(t, "127.0.0.1:1", "", "completion", shell)
	if text.code != exitDone {
		t.Fatal(text.stderr)
	}
	script = filepath.Join(folder, "completion")
	if err := os.WriteFile(script, []byte(text.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder, script
}

// inShell runs a shell in which sessionctl is the program, and asks the server.
func inShell(t *testing.T, folder, address string, command ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), asProgram+"=1", addressVariable+"="+address, "PATH="+folder+":/usr/bin:/bin", "HOME="+folder)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

const completeInBash = `
source /usr/share/bash-completion/bash_completion
source "$1"; shift
compopt() { :; } # bash has it within a completion alone
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
__start_sessionctl
printf '%s\n' "${COMPREPLY[@]}"
`

// TestBashCompletes: bash completes names that the daemon knows.
func TestBashCompletes(t *testing.T) {
	t.Parallel()
	folder, script := installed(t, "bash")
	server := controltest.Serve(t, controltest.Scene(), nil)
	for line, want := range map[string]string{
		"sessionctl subscriber get 100.64.0.7":     "100.64.0.7",
		"sessionctl nas get bng3":                  "bng3.example",
		"sessionctl subscriber list --sort sess":   "sessions",
		"sessionctl binding list --state dr":       "draining",
		"sessionctl pool drain 198.":               "198.51.100.0/28",
		"sessionctl subscriber list --output y":    "yaml",
		"sessionctl removal list --group d":        "default",
		"sessionctl mapping create --protocol t":   "tcp",
		"sessionctl settings set idle_timeouts.ud": "idle_timeouts.udp=",
	} {
		command := append([]string{"bash", "--norc", "-c", completeInBash, "bash", script}, strings.Fields(line)...)
		if got := strings.TrimSpace(strings.Split(inShell(t, folder, server.Address, command...), "(")[0]); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// TestFishCompletes: so does fish, with descriptions.
func TestFishCompletes(t *testing.T) {
	t.Parallel()
	folder, script := installed(t, "fish")
	server := controltest.Serve(t, controltest.Scene(), nil)
	got := inShell(t, folder, server.Address, "fish", "--no-config", "-c", "source "+script+"; complete -C 'sessionctl subscriber get 100.64.0.'")
	if got != "100.64.0.7\talice\n100.64.0.8\tbob" {
		t.Errorf("%q", got)
	}
}

// inZsh types lines into zsh on a terminal of its own, each with a tabulator behind it, and prints
// the lines as they are then. By ^X zsh tells its line.
const inZsh = `
zmodload zsh/zpty || exit 1
zpty shell zsh -f -i
zpty -w shell "PS1= COLUMNS=500; autoload -U compinit; compinit -u -D; source $1"
zpty -w shell 'tell() { print -r -- "<""$BUFFER"">"; BUFFER=; zle accept-line }; zle -N tell; bindkey "^X" tell; print READ""Y'
zpty -r shell line '*READY*'
shift
for typed; do
	zpty -w -n shell "$typed"$'\t\x18'
	zpty -r shell line '*<*>*'
	print -r -- "${${line##*<}%%>*}"
done
zpty -d shell
`

// TestZshCompletes: so does zsh.
func TestZshCompletes(t *testing.T) {
	t.Parallel()
	folder, script := installed(t, "zsh")
	server := controltest.Serve(t, controltest.Scene(), nil)
	lines := [][2]string{
		{"sessionctl nas get bng3", "sessionctl nas get bng3.example"},
		{"sessionctl binding list --state dr", "sessionctl binding list --state draining"},
		{"sessionctl pool drain 198.", "sessionctl pool drain 198.51.100.0/28"},
		{"sessionctl subscriber list --user al", "sessionctl subscriber list --user alice"},
		{"sessionctl subscriber get 100.64.0.", "sessionctl subscriber get 100.64.0."}, // two
		{"sessionctl settings set idle_timeouts.ud", "sessionctl settings set idle_timeouts.udp="},
		{"sessionctl subscriber list --remote 203.", "sessionctl subscriber list --remote 203."}, // any host, and no file
	}
	command := []string{"zsh", "-f", "-c", inZsh, "zsh", script}
	for _, line := range lines {
		command = append(command, line[0])
	}
	got := strings.Split(inShell(t, folder, server.Address, command...), "\n")
	for i, line := range lines {
		if len(got) != len(lines) || strings.TrimRight(got[i], " ") != line[1] {
			t.Errorf("%s: %q, want %q", line[0], got, line[1])
		}
	}
}
