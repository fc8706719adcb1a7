package scale

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// setCount is NFTA_SET_COUNT, the number of a set's elements, which golang.org/x/sys 0.49
// lacks. Linux 6.18 reports it; older kernels do not.
const setCount = 20

// elements counts the elements of all sets and maps in the CGN's namespace, in any table.
func (w *world) elements() (int, error) { return elementsIn(w.Lab.CGN) }

func elementsIn(ns *netlab.Namespace) (int, error) {
	return withNetfilter(ns, func(c *netlink.Conn) (int, error) { return countElements(c, false) })
}

// withNetfilter calls fn with a connection into a namespace.
func withNetfilter(ns *netlab.Namespace, fn func(*netlink.Conn) (int, error)) (n int, err error) {
	var c *netlink.Conn
	if err := ns.Do(func() (err error) {
		c, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	}); err != nil {
		return 0, err
	}
	defer c.Close()
	return fn(c)
}

// countElements adds up the kernel's counts of the sets. If the kernel reports none, or
// with walk, it lists the elements, which takes long, so that they may change meanwhile.
func countElements(c *netlink.Conn, walk bool) (n int, err error) {
	sets, err := dumpTables(c, unix.NFT_MSG_GETSET, nil)
	if err != nil {
		return 0, err
	}
	for _, set := range sets {
		count := set[setCount]
		if len(count) == 4 && !walk {
			n += int(binary.BigEndian.Uint32(count))
			continue
		}
		more, err := walkSet(c, set)
		if err != nil {
			return 0, err
		}
		n += more
	}
	return n, nil
}

// walkSet counts the elements of one set by listing them. It does not count ends of
// intervals, as NFTA_SET_COUNT does not.
func walkSet(c *netlink.Conn, set map[uint16][]byte) (n int, err error) {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: set[unix.NFTA_SET_TABLE]},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: set[unix.NFTA_SET_NAME]},
	})
	if err != nil {
		return 0, err
	}
	parts, err := dumpTables(c, unix.NFT_MSG_GETSETELEM, name)
	if err != nil {
		return 0, err
	}
	for _, part := range parts {
		elements, err := netlink.UnmarshalAttributes(part[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return 0, err
		}
		for _, e := range elements {
			attrs, err := attributes(e.Data)
			if err != nil {
				return 0, err
			}
			if flags := attrs[unix.NFTA_SET_ELEM_FLAGS]; len(flags) != 4 || binary.BigEndian.Uint32(flags)&unix.NFT_SET_ELEM_INTERVAL_END == 0 {
				n++
			}
		}
	}
	return n, nil
}

// dumpTables requests all objects of a kind in tables of family ip, and returns their
// attributes.
func dumpTables(c *netlink.Conn, command netlink.HeaderType, body []byte) ([]map[uint16][]byte, error) {
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | command, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_IPV4, 0, 0, 0}, body...),
	})
	if err != nil {
		return nil, err
	}
	var objects []map[uint16][]byte
	for _, a := range answers {
		attrs, err := attributes(a.Data[4:])
		if err != nil {
			return nil, err
		}
		objects = append(objects, attrs)
	}
	return objects, nil
}

func attributes(b []byte) (map[uint16][]byte, error) {
	list, err := netlink.UnmarshalAttributes(b)
	m := map[uint16][]byte{}
	for _, a := range list {
		m[a.Type] = a.Data
	}
	return m, err
}

func (w *world) awaitElements(ctx context.Context, want int) error {
	return w.await(ctx, fmt.Sprint(want, " elements"), func() (bool, error) {
		n, err := w.elements()
		return n == want, err
	})
}

// deleteTable deletes sessiond's table, as a reboot does.
func (w *world) deleteTable(ctx context.Context) error {
	_, err := w.Lab.CGN.Output(ctx, "nft", "delete", "table", "ip", "sessiond")
	return err
}

// The peer is nft, which loads two maps of the same kind from a file, in a namespace of its
// own.
type peer struct {
	lab  *netlab.Lab
	file string
	n    int
}

func newPeer(dir string, n int) (*peer, error) {
	p := &peer{file: filepath.Join(dir, "peer.nft"), n: n}
	if err := p.write(); err != nil {
		return nil, err
	}
	var err error
	p.lab, err = netlab.New(netlab.Options{})
	return p, err
}

func (p *peer) write() error {
	f, err := os.Create(p.file)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriter(f)
	fmt.Fprint(out, "table ip peer {\n\tmap gate {\n\t\ttype ipv4_addr : verdict\n\t\telements = {\n")
	eachBlock(p.n, func(inside, _ netip.Addr, _ int) { fmt.Fprintf(out, "%s : return,\n", inside) })
	fmt.Fprint(out, "\t\t}\n\t}\n\tmap block {\n\t\ttype ipv4_addr : interval ipv4_addr . inet_service\n\t\telements = {\n")
	eachBlock(p.n, func(inside, outside netip.Addr, port int) {
		fmt.Fprintf(out, "%s : %s . %d-%d,\n", inside, outside, port, port+63)
	})
	fmt.Fprint(out, "\t\t}\n\t}\n}\n")
	return out.Flush()
}

// eachBlock yields n inside addresses with blocks of 64 ports.
func eachBlock(n int, yield func(inside, outside netip.Addr, first int)) {
	in, out, port := inside.Addr(), netip.MustParseAddr("198.18.0.0"), 1024
	for range n {
		yield(in, out, port)
		in = in.Next()
		if port += 64; port == 1<<16 {
			out, port = out.Next(), 1024
		}
	}
}

// load makes nft load the file, and checks the number of elements.
func (p *peer) load(ctx context.Context) error {
	if _, err := p.lab.CGN.Output(ctx, "nft", "-f", p.file); err != nil {
		return err
	}
	n, err := elementsIn(p.lab.CGN)
	if err == nil && n != 2*p.n {
		err = fmt.Errorf("%d elements of %d", n, 2*p.n)
	}
	return err
}

func (p *peer) close() error { return p.lab.Close() }

// TestElementsAreCounted loads a peer and compares both ways to count.
func TestElementsAreCounted(t *testing.T) {
	testenv.Require(t, needs)
	const n = 3000 // more than one message lists
	p, err := newPeer(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	listed, err := withNetfilter(p.lab.CGN, func(c *netlink.Conn) (int, error) { return countElements(c, true) })
	if listed != 2*n || err != nil {
		t.Errorf("%d elements listed, %v", listed, err)
	}
}
