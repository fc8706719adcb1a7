package ownership

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/netns"
)

// within calls do on a thread in the namespace. Sockets opened by do stay in
// that namespace.
func within(name string, do func() error) error {
	ns, err := netns.Open(name)
	if err != nil {
		return err
	}
	defer ns.Close()
	return forbidden(ns.Do(do))
}

// forbidden adds the missing privilege to the kernel's error.
func forbidden(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: run it as root, or give it CAP_SYS_ADMIN for this, and CAP_NET_ADMIN to program the kernel", err)
	}
	return err
}

// place identifies a namespace among those of all machines, until its machine
// reboots. It is empty if that is unknown.
func place(name string) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	info, err := os.Stat(netns.Path(name))
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s/net:%d", strings.TrimSpace(string(boot)), stat.Ino)
}
