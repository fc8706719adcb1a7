package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/testenv"
)

const sources = "../.."

// exampleBlock is a block of docs/integrators.md: commands, a program, or a part of the output of
// the commands before.
var exampleBlock = regexp.MustCompile("(?ms)^```(sh|python|text)\n(.*?)^```$")

var programName = regexp.MustCompile(`\A# ([a-z]+\.py)\n`)

// TestIntegratorsExamples runs the examples of docs/integrators.md, in their order, against a sessiond.
func TestIntegratorsExamples(t *testing.T) {
	testenv.Require(t, testenv.Redis|testenv.Protoc)
	curl := grpcurl(t)
	w := start(t, testenv.Protoc)
	w.must(w.Until(w.ctx, "gRPC health", func() (bool, error) { return w.Daemon.Serving(w.ctx) }))
	text, err := os.ReadFile(filepath.Join(sources, "docs/integrators.md"))
	w.must(err)
	folder, printed, commands := t.TempDir(), "", 0
	for _, block := range exampleBlock.FindAllStringSubmatch(string(text), -1) {
		switch content := block[2]; block[1] {
		case "python":
			name := programName.FindStringSubmatch(content)
			if name == nil {
				t.Fatalf("a program without a name:\n%s", content)
			}
			w.must(os.WriteFile(filepath.Join(folder, name[1]), []byte(content), 0o600))
		case "sh":
			commands++
			printed = w.example(folder, filepath.Dir(curl), content)
		case "text":
			for line := range strings.Lines(content) {
				if !strings.Contains(printed, strings.TrimSpace(line)) {
					t.Errorf("no %q in:\n%s", strings.TrimSpace(line), printed)
				}
			}
		}
	}
	if commands < 4 {
		t.Errorf("%d blocks of commands", commands)
	}
}

// example runs commands in the sources and returns their output. They see the sessiond of the test
// at the socket that the document has.
func (w *world) example(folder, programs, commands string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.ctx, "bash", "-euc", strings.ReplaceAll(commands, "/run/sessiond/grpc.sock", filepath.Join(w.Dir, "grpc.sock")))
	cmd.Dir = sources
	cmd.Env = append(os.Environ(),
		"OUT="+folder, "PATH="+programs+":/usr/bin:/bin") // Debian's own Python
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%v:\n%s%s", err, commands, out)
	}
	return string(out)
}

// grpcurl builds grpcurl, once for all, and returns its path.
func grpcurl(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "tool", "-modfile=tools/go.mod", "-n", "grpcurl")
	cmd.Dir = sources
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build grpcurl: %v", err)
	}
	return strings.TrimSpace(string(out))
}
