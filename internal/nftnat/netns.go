package nftnat

import (
	"fmt"
	"os"
	"strings"
)

// namespace is a network namespace by its descriptor. The zero namespace is the
// process's own. Sockets are opened in it; no thread stays in it.
type namespace struct{ file *os.File }

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
	return namespace{f}, nil
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
