package ownership

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownNamespace is the network namespace of the calling thread.
const ownNamespace = "/proc/thread-self/ns/net"

// namespacePath returns the file of a namespace: "" is the process's own, a name is
// one under /run/netns (ip-netns(8)), anything else is a path.
func namespacePath(name string) string {
	switch {
	case name == "":
		return ownNamespace
	case !strings.ContainsRune(name, '/'):
		return filepath.Join("/run/netns", name)
	}
	return name
}

// within calls do on a thread that is in the namespace. A socket that do opens
// belongs to it ever after.
func within(name string, do func() error) error {
	if name == "" {
		return do()
	}
	target, err := os.Open(namespacePath(name))
	if err != nil {
		return fmt.Errorf("open network namespace %q: %w", name, err)
	}
	defer target.Close()
	result := make(chan error, 1)
	go func() { result <- visit(target, do) }()
	return <-result
}

// visit is within on a thread of its own, which is given up when it cannot return.
func visit(target *os.File, do func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(ownNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", target.Name(), forbidden(err))
	}
	err = do()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread() // else the thread ends with this goroutine
	}
	return err
}

// forbidden says what is missing where the kernel only says no.
func forbidden(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: run it as root, or give it CAP_SYS_ADMIN for this, and CAP_NET_ADMIN to program the kernel", err)
	}
	return err
}

// place identifies a namespace among all namespaces of all machines, until the
// machine boots anew. It is empty where that cannot be told.
func place(name string) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	info, err := os.Stat(namespacePath(name))
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s/net:%d", strings.TrimSpace(string(boot)), stat.Ino)
}
