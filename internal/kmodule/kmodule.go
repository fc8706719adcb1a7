// Package kmodule tells of kernel modules that are missing.
package kmodule

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Lacks reports whether the kernel refused something unknown to it: a module is missing, and
// could not be loaded on demand.
func Lacks(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Missing says which module is missing, and which command loads it.
func Missing(module string, err error) error {
	return fmt.Errorf("the kernel module %s is missing: load it (modprobe %s), at each boot by a line in /etc/modules-load.d/sessiond.conf, or install the kernel that has it: %w",
		module, module, err)
}
