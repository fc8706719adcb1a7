package rig

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// A Program is a program beside the rig, such as a RADIUS proxy. It ends with
// the process that started it, in any way that ends.
type Program struct {
	name string
	out  *output
	run  *process
}

// Run starts a program and keeps its output.
func Run(cmd *exec.Cmd) (*Program, error) {
	p := &Program{name: cmd.Path, out: newOutput()}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	var err error
	if p.run, err = startProcess(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// AwaitLine waits for a line of the program's output that contains the text.
func (p *Program) AwaitLine(ctx context.Context, text string) error {
	_, err := p.out.await(ctx, p.run.exited, func(line []byte) bool { return strings.Contains(string(line), text) })
	if err != nil {
		return fmt.Errorf("%s does not print %q: %w\n%s", p.name, text, err, p.out)
	}
	return nil
}

// Log returns the program's output so far.
func (p *Program) Log() string { return p.out.String() }

// PID is the program's process id.
func (p *Program) PID() int { return p.run.cmd.Process.Pid }

// Stop asks the program to end, with SIGTERM, and waits for it.
func (p *Program) Stop() error { return p.run.end(syscall.SIGTERM) }

// Kill ends the program with SIGKILL and waits for it.
func (p *Program) Kill() error { return p.run.end(syscall.SIGKILL) }
