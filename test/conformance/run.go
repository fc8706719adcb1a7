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
	"slices"
	"strings"
)

// Outcome is what a test, or a case of one, came to in a run.
type Outcome struct {
	Package string // its last element: "lsn"
	path    string // of the package, whole
	Name    string // with cases: "TestX_NAT07/udp"
	Action  string // "pass", "fail" or "skip"
	Again   bool   // of the second run, after a failure in the first
}

// Run runs the tests at root that name items, and returns their outcomes. Those that fail run
// again, one after the other: many have deadlines, which a busy machine misses, and a fault is
// there the second time too. Tests that fail are outcomes, and what they printed goes to log;
// the error is of a run that told none for a package.
func Run(ctx context.Context, root string, s *Sources, log io.Writer) ([]Outcome, error) {
	outcomes, err := runTests(ctx, root, s.Tests, s.Packages, log)
	if err != nil {
		return nil, err
	}
	tests, packages := failing(outcomes)
	if len(tests) == 0 {
		return outcomes, nil
	}
	fmt.Fprintf(log, "conformance: again, one after the other: %s\n", strings.Join(tests, ", "))
	again, err := runTests(ctx, root, tests, packages, log, "-p=1", "-parallel=1")
	if err != nil {
		return nil, err
	}
	return replace(outcomes, again), nil
}

// failing returns the functions that failed, or of which a case did, and their packages.
func failing(outcomes []Outcome) (tests, packages []string) {
	for _, o := range outcomes {
		if o.Action == "fail" {
			tests, packages = append(tests, o.function()), append(packages, o.path)
		}
	}
	slices.Sort(tests)
	slices.Sort(packages)
	return slices.Compact(tests), slices.Compact(packages)
}

// replace returns the outcomes with those of a second run in place of those of the same
// functions.
func replace(outcomes, again []Outcome) []Outcome {
	ran := map[string]bool{}
	for i := range again {
		again[i].Again = true
		ran[again[i].path+"."+again[i].function()] = true
	}
	kept := slices.DeleteFunc(slices.Clone(outcomes), func(o Outcome) bool { return ran[o.path+"."+o.function()] })
	return append(kept, again...)
}

// runTests runs functions of packages once, with more flags of go test.
func runTests(ctx context.Context, root string, tests, packages []string, log io.Writer, flags ...string) ([]Outcome, error) {
	args := slices.Concat([]string{"test", "-json", "-count=1", "-timeout=60m", "-run", "^(" + strings.Join(tests, "|") + ")$"}, flags, packages)
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

// function returns the name of the outcome's function.
func (o *Outcome) function() string {
	name, _, _ := strings.Cut(o.Name, "/")
	return name
}

// ids returns the items that the outcome is of: of a case those in its own name, which may have
// slashes, and in those of the cases that it is a part of.
func (o *Outcome) ids() []string {
	function, cases, isCase := strings.Cut(o.Name, "/")
	if isCase {
		return idsIn(cases)
	}
	return idsIn(function)
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
		if o := (Outcome{Package: path.Base(e.Package), path: e.Package, Name: e.Test, Action: e.Action}); len(o.ids()) > 0 {
			outcomes = append(outcomes, o)
		}
	}
}
