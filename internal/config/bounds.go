package config

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/goccy/go-yaml/token"
	"golang.org/x/sys/unix"
)

// Upper bounds of a file. The time of the YAML parser grows with the square of
// the depth, of the keys of a mapping and of the number of tags. A file of a
// few hundred thousand octets could occupy it for minutes.
const (
	maxSize  = 512 << 10 // octets; some thousand RADIUS clients
	maxDepth = 32        // of nested mappings and lists
	maxKeys  = 1000      // of one mapping
)

// readWithin bounds the time of reading a fifo whose other end is silent.
const readWithin = 2 * time.Second

// readFile reads at most one octet more than most, so that a caller can tell a file that is
// too long. It does not wait for the writer of a fifo: a reload that waited would block all
// later ones.
func readFile(file string, most int64) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(readWithin)) // only a fifo supports deadlines
	return io.ReadAll(io.LimitReader(f, most+1))
}

// bounds measures a file before it is parsed.
type bounds struct {
	open []collection // block mappings and lists around the token, outermost first
	flow int          // depth of collections in brackets and braces
}

// collection is a block mapping or list, identified by its first column.
type collection struct {
	column, keys int
}

// checkBounds reports the first bound that is exceeded, and returns whether all are kept.
func (r *report) checkBounds(tokens token.Tokens) bool {
	var b bounds
	for _, t := range tokens {
		if problem := b.count(t); problem != "" {
			r.add(t.Position.Line, "", problem)
			return false
		}
	}
	return true
}

// count adds the token and returns the problem it makes, or "".
func (b *bounds) count(t *token.Token) string {
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		b.flow++
	case token.SequenceEndType, token.MappingEndType:
		b.flow = max(0, b.flow-1)
	case token.TagType:
		return "has a tag, which is not read here; write the plain value"
	case token.SequenceEntryType:
		b.enter(t.Position.Column)
	case token.MappingValueType:
		if b.flow == 0 && t.Prev != nil {
			c := b.enter(t.Prev.Position.Column)
			if c.keys++; c.keys > maxKeys {
				return fmt.Sprintf("a mapping has more than %d keys; nothing here has so many", maxKeys)
			}
		}
	}
	if len(b.open)+b.flow > maxDepth {
		return fmt.Sprintf("is nested more than %d deep; nothing here is", maxDepth)
	}
	return ""
}

// enter returns the block collection at the column, and closes those further in.
func (b *bounds) enter(column int) *collection {
	for len(b.open) > 0 && b.open[len(b.open)-1].column > column {
		b.open = b.open[:len(b.open)-1]
	}
	if len(b.open) == 0 || b.open[len(b.open)-1].column < column {
		b.open = append(b.open, collection{column: column})
	}
	return &b.open[len(b.open)-1]
}
