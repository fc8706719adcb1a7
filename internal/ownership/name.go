package ownership

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A name is an abstract unix socket: it belongs to a network namespace, one process at a time
// has it, and the kernel frees it at the moment the process ends, for any reason (unix(7)).
// The process accepts no connection at it.
type name struct {
	text string
	fd   int
}

// A takenError identifies the process that has a name.
type takenError struct {
	pid uint32 // 0: a process invisible to this one, such as one in another container
	uid uint32
	mum bool // it accepts no connection: only its user is known, from the kernel
}

func (e *takenError) Error() string {
	if e.pid == 0 {
		return "a process that cannot be seen from here, in another container perhaps"
	}
	return fmt.Sprintf("process %d of user %d", e.pid, e.uid)
}

// stranger reports whether the process with the name is no sessiond: its user is neither root
// nor ours, and it may not program the kernel. An invisible process is no stranger, because
// its rights are unknown; a process that has ended has freed the name.
func (e *takenError) stranger() bool {
	switch {
	case e.uid == 0 || int(e.uid) == os.Geteuid():
		return false
	case e.mum: // any process of the user may be the one with the name
		return !administrator(e.uid)
	case e.pid == 0:
		return false
	}
	return !administers(fmt.Sprint(e.pid), e.uid)
}

// namesWith lists the abstract names in the network namespace of the calling thread that
// begin so; none where /proc does not list them.
func namesWith(begin string) (names []string) {
	sockets, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(sockets)) {
		if _, text, ok := strings.Cut(line, " @"+begin); ok {
			names = append(names, begin+strings.TrimSuffix(text, "\n"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names) // an unanswered connection is listed under the name, too
}

// bindNameIn takes a name in a namespace, or returns a *takenError.
func bindNameIn(namespace, text string) (*name, error) {
	var n *name
	err := within(namespace, func() (err error) {
		n, err = bindName(text)
		return err
	})
	return n, err
}

// waiting bounds the queue of connections at the name. Behind a full queue only the user of
// the name is known, not the process.
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
		return &name{text, fd}, nil
	}
	_ = unix.Close(fd)
	if !errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("take the name @%s: %w", text, err)
	}
	if taken, err := askName(text); taken != nil || err != nil {
		return nil, errors.Join(errOf(taken), err)
	}
	if uid, err := userOf(text); err == nil { // the name is taken, and its socket does not listen
		return nil, &takenError{uid: uid, mum: true}
	}
	return nil, &takenError{} // freed meanwhile: the next attempt gets it
}

func errOf(e *takenError) error {
	if e == nil {
		return nil
	}
	return e
}

// whoHas returns the process with a name in a namespace, nil for none.
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
		uid, err := userOf(text)
		return &takenError{uid: uid, mum: err == nil}, nil
	case err != nil:
		return nil, fmt.Errorf("ask who has the name @%s: %w", text, err)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return &takenError{}, nil
	}
	return &takenError{pid: uint32(peer.Pid), uid: peer.Uid}, nil
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
