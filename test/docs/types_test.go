package docs

import (
	"go/ast"
	"go/types"
	"strings"
	"testing"
)

// typeSize is the number of something in a type: its methods or its fields.
type typeSize struct{ name, of string }

// A type that has more lacks a noun.
var mostOf = map[string]int{"methods": 60, "fields": 25}

// TestTypesAreSmall: no type of the programs has more methods or fields than it may.
func TestTypesAreSmall(t *testing.T) {
	sizes := map[typeSize]int{}
	for _, s := range sourcesIn(t, "internal", "cmd") {
		countTypes(s.File, s.dir+".", sizes)
	}
	for size, n := range sizes {
		if n > mostOf[size.of] {
			t.Errorf("%s has %d %s, want %d at most", size.name, n, size.of, mostOf[size.of])
		}
	}
}

// countTypes adds the methods and the fields of the types in a file.
func countTypes(file *ast.File, prefix string, sizes map[typeSize]int) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv != nil {
				receiver := strings.TrimPrefix(types.ExprString(n.Recv.List[0].Type), "*")
				name, _, _ := strings.Cut(receiver, "[") // without type parameters
				sizes[typeSize{prefix + name, "methods"}]++
			}
		case *ast.TypeSpec:
			if s, ok := n.Type.(*ast.StructType); ok {
				sizes[typeSize{prefix + n.Name.Name, "fields"}] += s.Fields.NumFields()
			}
		}
		return true
	})
}
