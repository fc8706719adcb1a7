package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/sessiond/sessiond/internal/netns"
)

// namespaceDir is the directory of iproute2's named network namespaces.
const namespaceDir = netns.Dir

// prefix marks the namespaces of this package: sd-<pid>-<n>-<role>.
const prefix = "sd-"

var labs atomic.Uint64 // numbers the labs of this process

func newLabName() string {
	return fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), labs.Add(1))
}

// Sweep removes the namespaces of labs whose process was killed. New calls it,
// so that leftovers never pile up.
func Sweep() error {
	entries, err := os.ReadDir(namespaceDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep namespaces: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if pid, ok := ownerOf(e.Name()); ok && isDead(pid) {
			errs = append(errs, deleteNamespace(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// ownerOf returns the pid in the name of a lab's namespace.
func ownerOf(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	fields := strings.Split(rest, "-")
	if len(fields) != 3 {
		return 0, false
	}
	pid, err := strconv.Atoi(fields[0])
	return pid, err == nil && pid > 0
}

func isDead(pid int) bool {
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// addNamespace uses iproute2 for the mounts below /run/netns, because it shares
// them with other mount namespaces and locks them against concurrent changes.
func addNamespace(name string) error {
	return ipNetns("add", name)
}

// deleteNamespace deletes a namespace. It is no error if another sweep has
// deleted it already.
func deleteNamespace(name string) error {
	err := ipNetns("delete", name)
	if _, gone := os.Lstat(namespaceDir + "/" + name); errors.Is(gone, os.ErrNotExist) {
		return nil
	}
	return err
}

func ipNetns(verb, name string) error {
	out, err := exec.Command("ip", "netns", verb, name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip netns %s %s: %w: %s", verb, name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
