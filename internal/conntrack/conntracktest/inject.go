package conntracktest

import (
	"os"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
)

// requestsPerBatch is the number of entries in one datagram.
const requestsPerBatch = 200

// Request types of NFNL_SUBSYS_CTNETLINK.
const (
	newEntry    = 1 << 8   // IPCTNL_MSG_CT_NEW
	deleteEntry = 1<<8 | 2 // IPCTNL_MSG_CT_DELETE
)

// Inject creates entries in a namespace given by path, some 100,000 a second. An entry that
// exists already, or that collides with another's reply, fails the test.
func Inject(t testing.TB, path string, entries []conntrack.Entry) {
	t.Helper()
	each(t, path, netlink.Header{
		Type:  newEntry,
		Flags: netlink.Request | netlink.Create | netlink.Excl,
	}, entries)
}

// Prepare is Inject in two steps: it encodes all entries, and send, called once, creates
// them at the kernel's pace.
func Prepare(t testing.TB, path string, entries []conntrack.Entry) (send func()) {
	t.Helper()
	c := dial(t, path)
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var datagrams [][]byte
	for part := range slices.Chunk(entries, requestsPerBatch) {
		datagrams = append(datagrams, datagram(t, part))
	}
	return func() {
		for _, d := range datagrams {
			if werr := raw.Write(func(fd uintptr) bool { _, err = unix.Write(int(fd), d); return true }); werr != nil || err != nil {
				t.Fatal(werr, err)
			}
		}
	}
}

func datagram(t testing.TB, entries []conntrack.Entry) (d []byte) {
	t.Helper()
	for _, e := range entries {
		payload, err := Payload(e)
		if err != nil {
			t.Fatal(err)
		}
		m, err := netlink.Message{
			Header: netlink.Header{Length: uint32(16 + len(payload)), Type: newEntry, Flags: netlink.Request | netlink.Create | netlink.Excl},
			Data:   payload,
		}.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		d = append(d, m...)
	}
	return d
}

// Remove deletes existing entries, by their original tuples.
func Remove(t testing.TB, path string, entries []conntrack.Entry) {
	t.Helper()
	each(t, path, netlink.Header{
		Type:  deleteEntry,
		Flags: netlink.Request,
	}, entries)
}

// each sends one request for each entry.
func each(t testing.TB, path string, header netlink.Header, entries []conntrack.Entry) {
	t.Helper()
	c := dial(t, path)
	defer c.Close()
	for len(entries) > 0 {
		n := min(len(entries), requestsPerBatch)
		batch(t, c, header, entries[:n])
		entries = entries[n:]
	}
}

// dial opens a socket in a namespace given by path.
func dial(t testing.TB, path string) *netlink.Conn {
	t.Helper()
	space, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(space.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func batch(t testing.TB, c *netlink.Conn, header netlink.Header, entries []conntrack.Entry) {
	t.Helper()
	messages := make([]netlink.Message, len(entries))
	for i, e := range entries {
		payload, err := Payload(e)
		if err != nil {
			t.Fatal(err)
		}
		messages[i] = netlink.Message{Header: header, Data: payload}
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	if _, err := c.SendMessages(messages); err != nil {
		t.Fatal(err)
	}
	// Errors come unasked; the last entry's acknowledgement comes last.
	if _, err := c.Receive(); err != nil {
		t.Fatalf("request %#x about conntrack entries: %v", header.Type, err)
	}
}
