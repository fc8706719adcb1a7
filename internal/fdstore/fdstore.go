package fdstore

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// barrierTimeout bounds the wait until the manager has closed the sockets that nobody wants.
const barrierTimeout = 5 * time.Second

// A Store has the sockets that the manager kept, by the address in the configuration. It is
// used by one goroutine.
type Store struct {
	notify string // path of the manager's socket; empty: nobody keeps sockets
	kept   map[string]*os.File
	log    *slog.Logger
}

// Open takes over the descriptors that the manager passed (sd_listen_fds(3)). Sockets of none of
// the addresses are closed, in the manager too, so that they are in nobody's way. notify is the
// manager's socket, as in NOTIFY_SOCKET; empty for none. The caller must Close the Store.
//
// A manager that cannot be reached, or keeps nothing, is no error: the daemon serves without.
func Open(passed []*os.File, notify string, addresses []string, log *slog.Logger) *Store {
	s := &Store{notify: notify, kept: map[string]*os.File{}, log: log}
	wanted := map[string]string{} // address by name
	for _, a := range addresses {
		wanted[nameOf(a)] = a
	}
	removed := false
	var errs []error
	for _, f := range passed {
		address, ok := wanted[f.Name()]
		if ok && s.kept[address] == nil && fits(f, address) {
			s.kept[address] = f
			continue
		}
		if strings.HasPrefix(f.Name(), namePrefix) { // others are not ours to remove
			removed = true
			errs = append(errs, s.tell("FDSTOREREMOVE=1\nFDNAME="+f.Name()))
		}
		errs = append(errs, f.Close())
	}
	if removed {
		errs = append(errs, s.awaitManager())
	}
	if err := errors.Join(errs...); err != nil {
		log.Warn("sockets that nobody wants any more may still be bound", "error", err)
	}
	return s
}

// ListenUDP returns the socket of an address that the manager kept, or binds one, and has the
// manager keep it. The address is written as in Open.
func (s *Store) ListenUDP(network, address string) (*net.UDPConn, error) {
	if f := s.kept[address]; f != nil {
		delete(s.kept, address)
		defer f.Close()
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return nil, fmt.Errorf("take over the socket that the service manager kept: %w", err)
		}
		return pc.(*net.UDPConn), nil
	}
	at, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP(network, at)
	if err != nil {
		return nil, err
	}
	if err := s.keep(c, address); err != nil {
		s.log.Warn("requests that come during a restart will be lost", "address", address, "error", err)
	}
	return c, nil
}

// keep hands a socket to the manager. Its errors count for nothing there: the manager drops a
// socket with an error unless it is told not to look for any.
func (s *Store) keep(c *net.UDPConn, address string) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		err = s.tell("FDSTORE=1\nFDPOLL=0\nFDNAME="+nameOf(address), int(fd))
	})
	return errors.Join(err, controlErr)
}

// Close closes the sockets that were not asked for. The manager has them still.
func (s *Store) Close() error {
	var errs []error
	for _, f := range s.kept {
		errs = append(errs, f.Close())
	}
	s.kept = nil
	return errors.Join(errs...)
}

// namePrefix begins the names of our sockets in the manager's store.
const namePrefix = "radius-"

// nameOf returns the name of an address's socket. A name has no colon (sd_pid_notify_with_fds(3)).
func nameOf(address string) string { return namePrefix + strings.ReplaceAll(address, ":", "_") }

// fits reports whether a descriptor is a UDP socket that is bound as its address says. Port 0 in
// the address stands for any.
func fits(f *os.File, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Control(func(fd uintptr) {
		protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil || protocol != unix.IPPROTO_UDP {
			return
		}
		bound, err := unix.Getsockname(int(fd))
		if err != nil {
			return
		}
		only6, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		ok = boundAs(bound, only6 == 1, host, port)
	})
	return err == nil && ok
}

// boundAs reports whether a socket of an address is bound so, as radiusacct binds it: without a
// host to all addresses of both families, else to one family.
func boundAs(bound unix.Sockaddr, only6 bool, host, port string) bool {
	var addr netip.Addr
	var number int
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		addr, number = netip.AddrFrom4(b.Addr), b.Port
	case *unix.SockaddrInet6:
		addr, number = netip.AddrFrom16(b.Addr), b.Port
	default:
		return false
	}
	if port != "0" && port != fmt.Sprint(number) {
		return false
	}
	if host == "" {
		return addr == netip.IPv6Unspecified() && !only6
	}
	want, err := netip.ParseAddr(host)
	return err == nil && want.WithZone("") == addr && (addr.Is4() || only6)
}

// tell sends a message to the manager, with descriptors (sd_notify(3)).
func (s *Store) tell(message string, descriptors ...int) error {
	if s.notify == "" {
		return nil
	}
	// A connected socket of package net sends no descriptors.
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer unix.Close(c)
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	if err := unix.Sendmsg(c, []byte(message), rights, &unix.SockaddrUnix{Name: s.notify}, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", s.notify, err)
	}
	return nil
}

// awaitManager waits until the manager has done what it was told (sd_notify_barrier(3)): then it
// closes its end of a pipe.
func (s *Store) awaitManager() error {
	if s.notify == "" {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = s.tell("BARRIER=1", int(w.Fd()))
	w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(barrierTimeout)); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the service manager does not close the sockets that are not wanted any more")
	}
	return nil
}
