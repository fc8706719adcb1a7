// Package sendqueue tells how much of a TCP stream the peer's machine has not confirmed.
package sendqueue

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unconfirmed returns the number of octets that were written to a TCP socket and that the peer's
// machine has not confirmed (SIOCOUTQ, tcp(7)), and the socket's error if it has one.
func Unconfirmed(socket syscall.Conn) (octets int, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		var code int
		if octets, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); failed != nil {
			return
		}
		if code, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); failed == nil && code != 0 {
			failed = syscall.Errno(code)
		}
	})
	return octets, errors.Join(err, failed)
}
