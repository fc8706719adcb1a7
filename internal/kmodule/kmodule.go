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

// A MissingError says that a module is missing.
type MissingError struct {
	Module string
	Err    error // of the kernel
}

// Missing returns a MissingError.
func Missing(module string, err error) error { return &MissingError{module, err} }

// Error says which module is missing, and which command loads it.
func (e *MissingError) Error() string {
	return fmt.Sprintf("the kernel module %s is missing: load it (modprobe %s), at each boot by a line in /etc/modules-load.d/sessiond.conf, or install the kernel that has it: %v",
		e.Module, e.Module, e.Err)
}

// Unwrap returns the error of the kernel.
func (e *MissingError) Unwrap() error { return e.Err }
