package wire

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Error is the kernel's refusal of one operation. errors.Is matches its Errno.
type Error struct {
	Op     Op
	Errno  unix.Errno
	Detail string // the kernel's own words, if it had any
}

func (e *Error) Error() string {
	s := e.Op.Verb
	if e.Op.Object != "" {
		s += " " + e.Op.Object
	}
	if e.Detail != "" {
		return fmt.Sprintf("%s: %v (%s)", s, e.Errno, e.Detail)
	}
	return fmt.Sprintf("%s: %v", s, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }
