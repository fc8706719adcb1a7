package conntrack

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// namespaceDir is where ip-netns(8) keeps named namespaces.
const namespaceDir = "/run/netns"

// namespace opens sockets in a network namespace. No thread stays there: the
// socket alone belongs to it. Entering one other than the daemon's own needs
// CAP_SYS_ADMIN; its file stays open until close.
type namespace struct{ file *os.File }

// openNamespace takes "" for the caller's own, a name, or a path.
func openNamespace(name string) (namespace, error) {
	if name == "" {
		return namespace{}, nil
	}
	path := name
	if filepath.Base(name) == name {
		path = filepath.Join(namespaceDir, name)
	}
	file, err := os.Open(path)
	if err != nil {
		return namespace{}, fmt.Errorf("open network namespace: %w", err)
	}
	return namespace{file}, nil
}

func (n namespace) close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// dial opens a socket whose receive buffer has the given size in octets, or the
// largest size below it that the kernel allows.
func (n namespace) dial(receiveBuffer int) (*conn, error) {
	config := &netlink.Config{}
	if n.file != nil {
		config.NetNS = int(n.file.Fd())
	}
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, fmt.Errorf("dial ctnetlink: %w", err)
	}
	c, err := newConn(nl, receiveBuffer)
	if err != nil {
		nl.Close()
		return nil, err
	}
	return c, nil
}

// enlarge halves the size until the kernel takes it. Privileged sockets get
// what they ask for; others get net.core.rmem_max without an error.
func enlarge(nl *netlink.Conn, size int) error {
	for {
		err := nl.SetReadBuffer(size)
		if err == nil || size <= os.Getpagesize() {
			return err
		}
		size /= 2
	}
}
