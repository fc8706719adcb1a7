package netlab

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

// A Namespace is a network namespace in which code and commands can run. Its
// methods may be called concurrently, but not during or after Close.
type Namespace struct {
	name   string
	handle netns.NsHandle // closed for the caller's own namespace
}

// Current returns the caller's own namespace. It need not be entered, so it
// works without CAP_SYS_ADMIN.
func Current() *Namespace {
	return &Namespace{handle: netns.None()}
}

// Named opens a namespace under /run/netns.
func Named(name string) (*Namespace, error) {
	handle, err := netns.GetFromName(name)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", name, err)
	}
	return &Namespace{name: name, handle: handle}, nil
}

// OfProcess opens the namespace of a process, such as a container's.
func OfProcess(pid int) (*Namespace, error) {
	handle, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("open namespace of process %d: %w", pid, err)
	}
	return &Namespace{name: fmt.Sprintf("pid-%d", pid), handle: handle}, nil
}

// Name returns the name under /run/netns, "pid-<n>" for a namespace opened by
// OfProcess, or "" for the current one.
func (n *Namespace) Name() string { return n.name }

// Path returns the path of a named namespace.
func (n *Namespace) Path() string { return namespaceDir + "/" + n.name }

// Do runs fn in the namespace, on the calling goroutine. Sockets opened and
// processes started by fn stay in the namespace; goroutines started by fn do
// not run in it.
func (n *Namespace) Do(fn func() error) error {
	if !n.handle.IsOpen() {
		return fn()
	}
	runtime.LockOSThread()
	leave, err := n.enter()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer leave()
	return fn()
}

// enter moves the locked thread into the namespace. The returned function moves
// it back and unlocks it, or panics: a thread in the wrong namespace must never
// run other goroutines.
func (n *Namespace) enter() (leave func(), err error) {
	home, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("find own namespace: %w", err)
	}
	if err := netns.Set(n.handle); err != nil {
		_ = home.Close()
		return nil, fmt.Errorf("enter namespace %s: %w", n.name, err)
	}
	return func() {
		if err := netns.Set(home); err != nil {
			panic(fmt.Sprintf("netlab: cannot leave namespace %s: %v", n.name, err))
		}
		_ = home.Close()
		runtime.UnlockOSThread()
	}, nil
}

// Close releases the namespace; a named one continues to exist.
func (n *Namespace) Close() error {
	if !n.handle.IsOpen() {
		return nil
	}
	return n.handle.Close()
}
