package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/sessiond/sessiond/internal/netns"
)

// sysctls are files below /proc/sys. An open file stays that of the namespace it was opened
// in. They are opened at Run, because the kernel modules behind them may be loaded late.
type sysctls struct {
	events  *os.File // nf_conntrack_events: 0 is off, 1 on, 2 on while a listener exists
	buckets *os.File // nf_conntrack_buckets
}

const sysctlDir = "/proc/sys/net/netfilter/"

func openSysctls(n netns.Namespace) (s sysctls, err error) {
	err = n.Do(func() error {
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

// counted reports whether the kernel counts packets and octets of new entries.
func counted(n netns.Namespace) bool {
	on := false
	_ = n.Do(func() error {
		v, err := os.ReadFile(sysctlDir + "nf_conntrack_acct")
		on = err != nil || !bytes.Equal(bytes.TrimSpace(v), []byte("0")) // a file that cannot be read is not known to be off
		return nil
	})
	return on
}

// told reports whether the kernel sends events.
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
