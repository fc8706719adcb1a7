package conntracktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
)

// A Flood fills a connection tracking table with entries of unused addresses in 10.0.0.0/8.
type Flood struct {
	conn  *netlink.Conn
	proto []byte // payload of entry 0
	src   []int  // offsets of the address in proto
	port  []int  // offsets of the port in proto
	made  int
}

// floodAddress and floodPort are the source of entry 0.
var floodAddress = [4]byte{10, 0, 0, 0}

const floodPort, portsPerAddress = 10_001, 50_000

// NewFlood makes a flood for a namespace given by path. The caller must Close it.
func NewFlood(path string) (*Flood, error) {
	space, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer space.Close()
	orig := conntrack.Tuple{
		Protocol: unix.IPPROTO_UDP, Src: netip.AddrFrom4(floodAddress), SrcPort: floodPort,
		Dst: netip.MustParseAddr("203.0.113.77"), DstPort: 7,
	}
	reply := conntrack.Tuple{
		Protocol: unix.IPPROTO_UDP, Src: orig.Dst, SrcPort: orig.DstPort, Dst: orig.Src, DstPort: orig.SrcPort,
	}
	proto, err := Payload(conntrack.Entry{
		Orig: orig, Reply: reply, Status: SeenReply | Assured | Confirmed, Timeout: 5 * time.Minute,
	})
	if err != nil {
		return nil, err
	}
	f := &Flood{proto: proto}
	f.src = positions(proto, floodAddress[:])
	f.port = positions(proto, binary.BigEndian.AppendUint16(nil, floodPort))
	if f.conn, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(space.Fd())}); err != nil {
		return nil, err
	}
	return f, nil
}

func positions(in, of []byte) []int {
	var at []int
	for i := range in {
		if bytes.HasPrefix(in[i:], of) {
			at = append(at, i)
		}
	}
	return at
}

// Rise adds up to n entries. They are assured, so a full table does not evict them. It
// reports whether the table was full before n were added.
func (f *Flood) Rise(n int) (full bool, err error) {
	for range (n + requestsPerBatch - 1) / requestsPerBatch {
		switch err := f.send(newEntry, netlink.Create|netlink.Excl, f.made); {
		case errors.Is(err, unix.ENOMEM):
			f.made += requestsPerBatch // some of them
			return true, nil
		case err != nil:
			return false, fmt.Errorf("flood conntrack table: %w", err)
		}
		f.made += requestsPerBatch
	}
	return false, nil
}

// Ebb deletes all entries that Rise added.
func (f *Flood) Ebb() error {
	for from := 0; from < f.made; from += requestsPerBatch {
		if err := f.send(deleteEntry, 0, from); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("drain conntrack table: %w", err)
		}
	}
	f.made = 0
	return nil
}

// send makes one request for each entry of a batch, and returns the first error. The kernel
// reports errors without being asked. A no-op message at the end asks for the
// acknowledgement, so that its answer ends the batch.
func (f *Flood) send(kind netlink.HeaderType, flags netlink.HeaderFlags, from int) error {
	messages := make([]netlink.Message, requestsPerBatch, requestsPerBatch+1)
	for i := range messages {
		messages[i] = netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
			Data:   f.payload(from + i),
		}
	}
	messages = append(messages, netlink.Message{Header: netlink.Header{
		Type: netlink.Noop, Flags: netlink.Request | netlink.Acknowledge,
	}})
	if _, err := f.conn.SendMessages(messages); err != nil {
		return err
	}
	var first error
	for range messages {
		_, err := f.conn.Receive()
		if err == nil {
			break
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (f *Flood) payload(i int) []byte {
	b := bytes.Clone(f.proto)
	address := binary.BigEndian.Uint32(floodAddress[:]) + uint32(i/portsPerAddress)
	for _, at := range f.src {
		binary.BigEndian.PutUint32(b[at:], address)
	}
	for _, at := range f.port {
		binary.BigEndian.PutUint16(b[at:], uint16(floodPort+i%portsPerAddress))
	}
	return b
}

// Close closes the socket; entries that were added and not deleted stay.
func (f *Flood) Close() error { return f.conn.Close() }
