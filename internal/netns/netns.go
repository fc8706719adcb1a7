// Package netns opens network namespaces, and works in them.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is the directory in which ip-netns(8) keeps named namespaces.
const Dir = "/run/netns"

// ErrReplaced says that another namespace has the name by now.
var ErrReplaced = errors.New("was deleted and made anew")

// current is the namespace of the calling thread.
const current = "/proc/thread-self/ns/net"

// Path returns the file of a namespace: the process's own for "", one in Dir for a name, and
// the text itself if it has a slash.
func Path(name string) string {
	switch {
	case name == "":
		return current
	case !strings.ContainsRune(name, '/'):
		return filepath.Join(Dir, name)
	}
	return name
}

// A Namespace is an open network namespace. Its zero value is the process's own, which
// is not closed.
type Namespace struct{ file *os.File }

// Open opens a namespace as Path names it. An open namespace lives on when its name is
// deleted.
func Open(name string) (Namespace, error) {
	if name == "" {
		return Namespace{}, nil
	}
	f, err := os.Open(Path(name))
	if err != nil {
		return Namespace{}, fmt.Errorf("open network namespace %q: %w", name, err)
	}
	return Namespace{f}, nil
}

// FD returns the descriptor, or 0 for the process's own namespace.
func (n Namespace) FD() int {
	if n.file == nil {
		return 0
	}
	return int(n.file.Fd())
}

// Close closes the descriptor. Sockets opened in the namespace stay in it.
func (n Namespace) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// Check returns an error if the namespace has lost its name: ErrReplaced if another one has
// it, since others may delete a namespace and make another one of its name. The open namespace
// exists as long as it is open here, and other processes cannot reach it.
func (n Namespace) Check() error {
	if n.file == nil {
		return nil
	}
	named, err := os.Stat(n.file.Name())
	if err != nil {
		return fmt.Errorf("network namespace %s is gone: %w", n.file.Name(), err)
	}
	own, err := n.file.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(named, own) {
		return fmt.Errorf("network namespace %s %w", n.file.Name(), ErrReplaced)
	}
	return nil
}

// Do calls fn on a thread inside the namespace, and returns its error. Sockets that fn opens,
// and files below /proc/sys, belong to the namespace from then on. Entering a namespace other
// than the process's own needs CAP_SYS_ADMIN.
func (n Namespace) Do(fn func() error) error {
	if n.file == nil {
		return fn()
	}
	result := make(chan error, 1)
	go func() { result <- n.visit(fn) }()
	return <-result
}

// visit is Do on a goroutine of its own. A thread that cannot return to its namespace ends
// with the goroutine.
func (n Namespace) visit(fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(current)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", n.file.Name(), err)
	}
	err = fn()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// Scratch calls fn with the path of a new network namespace that has nothing but its loopback
// interface, and that ends after the call with all that was made in it. It needs CAP_SYS_ADMIN.
func Scratch(fn func(path string) error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and its namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		result <- fn(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()))
	}()
	return <-result
}
