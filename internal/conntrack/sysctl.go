package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// sysctls are files below /proc/sys that stay those of one namespace. They are
// opened when first read: the modules behind them may come late.
type sysctls struct {
	events  *os.File // nf_conntrack_events: 0 is off, 1 on, 2 on while somebody listens
	buckets *os.File // nf_conntrack_buckets
}

const sysctlDir = "/proc/sys/net/netfilter/"

func openSysctls(n namespace) (s sysctls, err error) {
	err = n.inside(func() error {
		var events, buckets error
		s.events, events = os.Open(sysctlDir + "nf_conntrack_events")
		s.buckets, buckets = os.Open(sysctlDir + "nf_conntrack_buckets")
		return errors.Join(events, buckets)
	})
	if err != nil {
		s.close()
		return sysctls{}, fmt.Errorf("open conntrack sysctls: %w", err)
	}
	return s, nil
}

func (s sysctls) close() {
	for _, f := range []*os.File{s.events, s.buckets} {
		if f != nil {
			f.Close()
		}
	}
}

// counted reports whether the kernel counts packets and octets of what begins now.
func counted(n namespace) bool {
	on := false
	_ = n.inside(func() error {
		v, err := os.ReadFile(sysctlDir + "nf_conntrack_acct")
		on = err != nil || !bytes.Equal(bytes.TrimSpace(v), []byte("0")) // one that cannot be read is not known to be off
		return nil
	})
	return on
}

// told reports whether the kernel tells what begins and ends.
func (s sysctls) told() bool {
	v := read(s.events)
	return len(v) > 0 && !bytes.Equal(v, []byte("0"))
}

// read returns a value, empty when there is none.
func read(f *os.File) []byte {
	if f == nil {
		return nil
	}
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0) // io.EOF always
	return bytes.TrimSpace(b[:n])
}

// inside calls fn on a thread that is in the namespace meanwhile. A thread that
// cannot be brought back ends with its goroutine.
func (n namespace) inside(fn func() error) error {
	if n.file == nil {
		return fn()
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := n.visit(fn)
		if !errors.Is(err, errStuck) {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

var errStuck = errors.New("cannot return to the own network namespace")

func (n namespace) visit(fn func() error) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	err = fn()
	if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) != nil {
		return errStuck
	}
	return err
}
