package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// value is one YAML value, with its position.
type value struct {
	report *report
	key    string // path from the root
	line   int
	node   ast.Node // nil for an empty document
}

// errorf reports an error in the value.
func (v value) errorf(format string, args ...any) {
	v.report.add(v.line, v.key, fmt.Sprintf(format, args...))
}

// warnf reports a warning for the operator.
func (v value) warnf(format string, args ...any) {
	v.report.doubts = append(v.report.doubts, Problem{v.report.file, v.line, v.key, fmt.Sprintf(format, args...)})
}

// child returns the position of an absent key, for reports.
func (v value) child(key string) value {
	path := key
	if v.key != "" {
		path = v.key + "." + key
	}
	return value{report: v.report, key: path, line: v.line}
}

// fields holds a reader for each key of a mapping.
type fields map[string]func(value)

// mapping reads a mapping and returns the set of its keys. It reports unknown
// and repeated keys.
func (v value) mapping(known fields) map[string]bool {
	seen := map[string]bool{}
	if v.node == nil {
		return seen
	}
	m, ok := v.node.(ast.MapNode)
	if !ok {
		v.errorf("is %s; write keys and values (%s)", kind(v.node), keysOf(known))
		return seen
	}
	for it := m.MapRange(); it.Next(); {
		token := it.Key().GetToken()
		child := v.child(token.Value)
		child.line = token.Position.Line
		read, ok := known[token.Value]
		switch {
		case !ok:
			child.errorf("unknown key; known here: %s", keysOf(known))
		case seen[token.Value]:
			child.errorf("is there twice; keep one")
		case it.Value() == nil || it.Value().Type() == ast.NullType:
			child.errorf("has no value; write one or remove the key")
		default:
			child.node = it.Value()
			read(child)
		}
		seen[token.Value] = true
	}
	return seen
}

// require reports missing keys of a mapping.
func (v value) require(seen map[string]bool, keys ...string) {
	for _, k := range keys {
		if !seen[k] {
			v.child(k).errorf("is missing; it has no default")
		}
	}
}

func keysOf(known fields) string {
	return strings.Join(slices.Sorted(maps.Keys(known)), ", ")
}

// sequence returns the elements of a list, and reports an empty one.
func (v value) sequence() []value {
	if s, ok := v.node.(*ast.SequenceNode); ok && len(s.Values) == 0 {
		v.errorf("is an empty list; write at least one element")
	}
	return v.list()
}

// list returns the elements of a list, which may be empty.
func (v value) list() []value {
	s, ok := v.node.(*ast.SequenceNode)
	if !ok {
		v.errorf("is %s; write a list", kind(v.node))
		return nil
	}
	var elements []value
	for i, n := range s.Values {
		e := value{report: v.report, key: fmt.Sprintf("%s[%d]", v.key, i), line: n.GetToken().Position.Line, node: n}
		if n.Type() == ast.NullType {
			e.errorf("has no value; write one or remove it")
			continue
		}
		if m, ok := n.(ast.MapNode); ok {
			if it := m.MapRange(); it.Next() { // the position of its first key, not that of the colon after it
				e.line = it.Key().GetToken().Position.Line
			}
		}
		elements = append(elements, e)
	}
	return elements
}

// empty reports whether the value is a list without elements.
func (v value) empty() bool {
	s, ok := v.node.(*ast.SequenceNode)
	return ok && len(s.Values) == 0
}

// scalar returns the text of a single value as written.
func (v value) scalar() (string, bool) {
	switch n := v.node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	if _, ok := v.node.(ast.MapNode); ok {
		v.errorf("is a mapping; write a single value, in quotes when it has a colon")
		return "", false
	}
	v.errorf("is %s; write a single value", kind(v.node))
	return "", false
}

// kind names a node's type for a message.
func kind(n ast.Node) string {
	switch n.(type) {
	case ast.MapNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AliasNode, *ast.AnchorNode:
		return "an alias or anchor, which are not read here"
	}
	return "a single value"
}
