package docs

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// firstAttribute is the place of the first attribute among the arguments of a log method.
var firstAttribute = map[string]int{
	"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0,
	"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "Log": 3,
}

var (
	attributeRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|")
	snakeCase    = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
)

// TestLogAttributes: docs/logging.md has each attribute of the log, and no other.
func TestLogAttributes(t *testing.T) {
	listed := map[string]bool{} // whether a call has it
	for _, m := range attributeRow.FindAllStringSubmatch(read(t, "docs/logging.md"), -1) {
		listed[m[1]] = false
	}
	for _, s := range sourcesIn(t, "internal", "cmd/sessiond") {
		for name, at := range attributesIn(s.File) {
			if _, ok := listed[name]; !ok || !snakeCase.MatchString(name) {
				t.Errorf("%s: attribute %q is not in docs/logging.md: use one that is, or add it", s.position(at), name)
			}
			listed[name] = true
		}
	}
	for name, used := range listed {
		if !used {
			t.Errorf("docs/logging.md: no log call has the attribute %q", name)
		}
	}
}

// attributesIn returns the names of the attributes in the log calls of a file: the keys of
// slog's methods, and the names of slog's attributes. Keys that are not literals are passed
// over.
func attributesIn(file *ast.File) map[string]token.Pos {
	found := map[string]token.Pos{}
	note := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if name, err := strconv.Unquote(lit.Value); err == nil {
				found[name] = lit.Pos()
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if of, ok := method.X.(*ast.Ident); ok && of.Name == "slog" {
			if attributeKinds[method.Sel.Name] {
				note(call.Args[0])
			}
			return true
		}
		first, ok := firstAttribute[method.Sel.Name]
		if !ok || !isLogger(method.X) {
			return true
		}
		for i := first; i < len(call.Args); i += 2 {
			note(call.Args[i])
		}
		return true
	})
	return found
}

// attributeKinds are the functions of slog that make an attribute of a name.
var attributeKinds = map[string]bool{"String": true, "Int": true, "Duration": true, "Bool": true, "Any": true}

// isLogger reports whether an expression is a logger by its name.
func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.HasSuffix(strings.ToLower(e.Name), "log") || strings.HasSuffix(strings.ToLower(e.Name), "logger")
	case *ast.SelectorExpr:
		return isLogger(e.Sel)
	case *ast.CallExpr:
		return isLogger(e.Fun)
	}
	return false
}
