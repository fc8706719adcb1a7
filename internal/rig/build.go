package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Programs are built programs of this module, in a directory of their own.
type Programs struct {
	Sessiond, Sessionctl string // paths

	dir string
}

// Build builds the programs from the module of the working directory, as tests
// do. The caller must Remove them.
func Build() (*Programs, error) {
	dir, err := os.MkdirTemp("", "sessiond-programs-")
	if err != nil {
		return nil, err
	}
	const module = "github.com/sessiond/sessiond/cmd/"
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir, module+"sessiond", module+"sessionctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // and -trimpath, as make build: compiled once
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return &Programs{filepath.Join(dir, "sessiond"), filepath.Join(dir, "sessionctl"), dir}, nil
}

// Main builds the programs into into, runs a package's tests, and removes the
// programs. It returns the exit code.
func Main(tests interface{ Run() int }, into **Programs) int {
	programs, err := Build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = programs.Remove() }()
	*into = programs
	return tests.Run()
}

// Remove deletes the programs.
func (p *Programs) Remove() error { return os.RemoveAll(p.dir) }
