package nftnat

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// namespace is a network namespace by its descriptor. The zero namespace is the
// process's own. Sockets are opened in it; no thread stays in it.
type namespace struct {
	file *os.File
	path string
}

// openNamespace opens a namespace by name under /run/netns, or by path.
func openNamespace(name string) (namespace, error) {
	if name == "" {
		return namespace{}, nil
	}
	path := name
	if !strings.ContainsRune(name, '/') {
		path = "/run/netns/" + name
	}
	f, err := os.Open(path)
	if err != nil {
		return namespace{}, fmt.Errorf("open network namespace %q: %w", name, err)
	}
	return namespace{f, path}, nil
}

// errReplaced says that the namespace's name is that of another one by now.
var errReplaced = errors.New("was deleted and made anew: what is programmed is in the old one; start again to serve the new one")

// check finds out whether the namespace still has its name. Others may delete it, and make
// another one by that name: it stays as long as it is open here, and nobody sees it.
func (n namespace) check() error {
	if n.file == nil {
		return nil
	}
	named, err := os.Stat(n.path)
	if err != nil {
		return fmt.Errorf("network namespace %s is gone: %w", n.path, err)
	}
	own, err := n.file.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(named, own) {
		return fmt.Errorf("network namespace %s %w", n.path, errReplaced)
	}
	return nil
}

// fd is the descriptor, or 0 for the process's own namespace.
func (n namespace) fd() int {
	if n.file == nil {
		return 0
	}
	return int(n.file.Fd())
}

func (n namespace) close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}
