package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode admits the owner and the group of the unix socket.
const socketMode = 0o660

// unixPrefix is the prefix of unix socket addresses.
const unixPrefix = "unix:"

// listen opens "host:port" or "unix:PATH". The group may connect to the socket;
// empty is the daemon's own group.
func listen(address, group string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, unixPrefix)
	if !isUnix {
		return net.Listen("tcp", address)
	}
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	unlock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The mode is set before the file exists, so that no other user can connect in
	// between.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil { // the umask may have removed bits
		return nil, errors.Join(err, l.Close())
	}
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			return nil, errors.Join(fmt.Errorf("give %s to group %s: %w", path, group, err), l.Close())
		}
	}
	return l, nil
}

// groupID returns the number of a group, -1 for none.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("group of the socket: %w; make it with groupadd, or name another", err)
	}
	return strconv.Atoi(g.Gid)
}

// lockWait bounds a start's wait for another start on the same socket, which
// takes milliseconds.
const lockWait = 2 * time.Second

// lockSocket prevents two starting daemons from removing each other's new
// socket. The lock is on a file of its own beside the socket, which other users
// cannot open. A lock on the folder would not do: any user who may read it
// could take that lock and block every start.
func lockSocket(socket string) (unlock func(), err error) {
	path := socket + ".lock"
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockWait / 200) {
		f, err := tryLock(path)
		if err == nil {
			return func() { _ = os.Remove(path); _ = f.Close() }, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s: %w; end that daemon, or choose another socket", path, err)
		}
	}
}

// errLocked: the lock must be tried again.
var errLocked = errors.New("another daemon is opening the socket")

// tryLock opens and locks a file, and creates it if necessary.
func tryLock(path string) (*os.File, error) {
	// O_NONBLOCK keeps the opening of a fifo from blocking.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock file of the socket: %w; remove it if it is there, and let sessiond write its folder", err)
	}
	if err := lockOwn(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lockOwn locks a file if no other user can open it and it still has its name.
// The previous holder of the lock removes the name.
func lockOwn(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || owner != uint32(os.Geteuid()) {
		return fmt.Errorf("%s is not the lock file of sessiond (%v, of user %d); remove it, and let nobody else write its folder",
			path, info.Mode(), owner)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errLocked
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	named, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, named) {
		return errLocked
	}
	return err
}

// removeStale removes the socket that a killed daemon left behind. It refuses
// any other kind of file, and a socket with a listener.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is no socket", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use by another process", path), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
