package ownership

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A name is an abstract unix socket. It belongs to a network namespace, only
// one process at a time can have it, and the kernel frees it as soon as that
// process ends, in any way (unix(7)). Connections to it are never accepted.
type name struct{ fd int }

// A takenError identifies the process that has a name.
type takenError struct {
	pid uint32 // 0: a process that this one cannot see, such as one in another container
	uid uint32
}

func (e *takenError) Error() string {
	if e.pid == 0 {
		return "a process that cannot be seen from here, in another container perhaps"
	}
	return fmt.Sprintf("process %d of user %d", e.pid, e.uid)
}

// takeName takes a name in a namespace, or returns a *takenError.
func takeName(namespace, text string) (*name, error) {
	var n *name
	err := within(namespace, func() (err error) {
		n, err = bindName(text)
		return err
	})
	return n, err
}

// waiting bounds the connections that wait at the name. Further askers learn
// only that it is taken, not by which process.
const waiting = 128

func bindName(text string) (*name, error) {
	fd, err := openSocket()
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + text}); err == nil {
		err = unix.Listen(fd, waiting)
	}
	if err == nil {
		return &name{fd}, nil
	}
	_ = unix.Close(fd)
	if !errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("take the name @%s: %w", text, err)
	}
	if taken, err := askName(text); taken != nil || err != nil {
		return nil, errors.Join(errOf(taken), err)
	}
	return nil, &takenError{} // it was given up in between; the next attempt gets it
}

func errOf(e *takenError) error {
	if e == nil {
		return nil
	}
	return e
}

// whoHas returns the process that has a name in a namespace, nil for none.
func whoHas(namespace, text string) (taken *takenError, err error) {
	err = within(namespace, func() (err error) {
		taken, err = askName(text)
		return err
	})
	return taken, err
}

func askName(text string) (*takenError, error) {
	fd, err := openSocket()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + text}); {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, nil
	case errors.Is(err, unix.EAGAIN):
		return &takenError{}, nil // the queue of connections is full
	case err != nil:
		return nil, fmt.Errorf("ask who has the name @%s: %w", text, err)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return &takenError{}, nil
	}
	return &takenError{uint32(peer.Pid), peer.Uid}, nil
}

func openSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("open unix socket: %w", err)
	}
	return fd, nil
}

func (n *name) close() error {
	if n == nil {
		return nil
	}
	return unix.Close(n.fd)
}
