package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A process is a program that can be ended and waited for.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	// The program ends with the rig's process, in any way that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.exited)
		err := lockedStart(cmd, started)
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// lockedStart starts the command from a thread that lives as long as the
// command, because a child's death signal depends on its parent thread.
func lockedStart(cmd *exec.Cmd, started chan<- error) error {
	runtime.LockOSThread()
	err := cmd.Start()
	started <- err
	return err
}

// Times that a process gets to end, and to print where it hangs.
const (
	endsWithin   = 30 * time.Second
	printsWithin = 2 * time.Second
)

// end sends the signal and waits for the end of the process. One that hangs is killed by
// SIGQUIT, on which a Go program prints its goroutines.
func (p *process) end(s syscall.Signal) error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.exited:
		return nil
	case <-time.After(endsWithin):
	}
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.exited:
	case <-time.After(printsWithin):
		_ = p.cmd.Process.Kill()
	}
	return fmt.Errorf("%s does not end within %v after %v", p.cmd.Path, endsWithin, s)
}

// output keeps a process's output, and lets callers wait for a line of it.
type output struct {
	mu    sync.Mutex
	lines [][]byte
	part  []byte
	grown chan struct{}
}

func newOutput() *output { return &output{grown: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.part = append(o.part, b...)
	for {
		line, rest, ok := bytes.Cut(o.part, []byte("\n"))
		if !ok {
			break
		}
		o.lines = append(o.lines, bytes.Clone(line))
		o.part = rest
	}
	close(o.grown)
	o.grown = make(chan struct{})
	return len(b), nil
}

// await returns the first line that matches, and waits for it if necessary.
func (o *output) await(ctx context.Context, ended <-chan struct{}, match func([]byte) bool) ([]byte, error) {
	for next := 0; ; {
		o.mu.Lock()
		lines, grown := o.lines, o.grown
		o.mu.Unlock()
		for ; next < len(lines); next++ {
			if match(lines[next]) {
				return lines[next], nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ended:
			return nil, errors.New("the program ended")
		case <-grown:
		}
	}
}

// String returns the whole output.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(append(bytes.Join(o.lines, []byte("\n")), o.part...))
}
