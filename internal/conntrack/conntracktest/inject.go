package conntracktest

import (
	"os"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
)

// injectBatch is how many entries go into one datagram.
const injectBatch = 200

// Inject creates entries in a namespace given by path, some 100,000 a second.
// One that stands already, or that collides with another's reply, fails the
// test.
func Inject(t testing.TB, path string, entries []conntrack.Entry) {
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
	defer c.Close()
	for len(entries) > 0 {
		n := min(len(entries), injectBatch)
		inject(t, c, entries[:n])
		entries = entries[n:]
	}
}

func inject(t testing.TB, c *netlink.Conn, entries []conntrack.Entry) {
	t.Helper()
	messages := make([]netlink.Message, len(entries))
	for i, e := range entries {
		payload, err := Payload(e)
		if err != nil {
			t.Fatal(err)
		}
		messages[i] = netlink.Message{
			Header: netlink.Header{
				Type:  1 << 8, // IPCTNL_MSG_CT_NEW
				Flags: netlink.Request | netlink.Create | netlink.Excl,
			},
			Data: payload,
		}
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	if _, err := c.SendMessages(messages); err != nil {
		t.Fatal(err)
	}
	// Errors come unasked; the last entry's acknowledgement comes last.
	if _, err := c.Receive(); err != nil {
		t.Fatalf("inject conntrack entries: %v", err)
	}
}
