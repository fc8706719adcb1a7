// Package peercred tells which user of this machine is at the other end of a connection.
package peercred

import (
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNotUnix is the error of a connection of another kind.
var errNotUnix = errors.New("not a unix socket")

// Unix returns the user at the other end of a unix socket, and that user's groups,
// as they were when the connection was made.
func Unix(c net.Conn) (user uint32, groups []uint32, err error) {
	socket, ok := c.(*net.UnixConn)
	if !ok {
		return 0, nil, errNotUnix
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var who *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		if who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed == nil {
			groups, failed = supplementary(fd)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, nil, err
	}
	return who.Uid, append(groups, who.Gid), nil
}

// supplementary returns the peer's supplementary groups (SO_PEERGROUPS, Linux
// 4.13). The kernel tells the size that it needs.
func supplementary(fd uintptr) ([]uint32, error) {
	const width = uint32(unsafe.Sizeof(uint32(0)))
	for room := uint32(64); ; {
		groups, size := make([]uint32, room), room*width
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == 0:
			return groups[:size/width], nil
		case e != unix.ERANGE || size/width <= room:
			return nil, e
		}
		room = size / width
	}
}
