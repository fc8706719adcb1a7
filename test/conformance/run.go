package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"
)

// Outcome is what a test, or a case of one, came to in a run.
type Outcome struct {
	Package string // its last element: "lsn"
	Name    string // with cases: "TestX_NAT07/udp"
	Action  string // "pass", "fail" or "skip"
}

// Run runs the tests at root that name items, and returns their outcomes. Tests that fail are
// outcomes, and what they printed goes to log; the error is of a run that told none for a
// package.
func Run(ctx context.Context, root string, s *Sources, log io.Writer) ([]Outcome, error) {
	args := append([]string{
		"test", "-json", "-count=1", "-timeout=30m", "-run", "^(" + strings.Join(s.Tests, "|") + ")$",
	}, s.Packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run tests: %w", err)
	}
	outcomes, failed, readErr := readOutcomes(out, log)
	err = cmd.Wait()
	if readErr != nil {
		return nil, fmt.Errorf("read results of tests: %w", readErr)
	}
	if _, exited := errors.AsType[*exec.ExitError](err); exited && failed {
		return outcomes, nil
	}
	if err != nil {
		return nil, fmt.Errorf("run tests: %w\n%s", err, complaints.Bytes())
	}
	return outcomes, nil
}

// readOutcomes reads what go test -json prints, and reports whether a test failed. The output
// of those that did goes to log. It complains of a package that failed without one: it does not
// build, or its process died.
func readOutcomes(r io.Reader, log io.Writer) (outcomes []Outcome, failed bool, err error) {
	failedTests := map[string]bool{}            // by package
	printed := map[string]map[string][]string{} // by package and test that runs
	d := json.NewDecoder(r)
	for {
		var e struct{ Action, Package, Test, ImportPath, Output string }
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return outcomes, len(failedTests) > 0, nil
		} else if err != nil {
			return nil, false, err
		}
		if e.Action == "build-fail" {
			return nil, false, fmt.Errorf("package %s does not build", e.ImportPath)
		}
		if e.Action == "output" {
			if printed[e.Package] == nil {
				printed[e.Package] = map[string][]string{}
			}
			printed[e.Package][e.Test] = append(printed[e.Package][e.Test], e.Output)
		}
		if e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
			continue
		}
		if e.Action == "fail" {
			fmt.Fprintf(log, "%s:\n%s", path.Base(e.Package), strings.Join(printed[e.Package][e.Test], ""))
		}
		delete(printed[e.Package], e.Test)
		if e.Test == "" {
			if e.Action == "fail" && !failedTests[e.Package] {
				return nil, false, fmt.Errorf("package %s ended without a result", e.Package)
			}
			continue
		}
		if e.Action == "fail" {
			failedTests[e.Package] = true
		}
		if len(idsIn(path.Base(e.Test))) > 0 {
			outcomes = append(outcomes, Outcome{Package: path.Base(e.Package), Name: e.Test, Action: e.Action})
		}
	}
}
