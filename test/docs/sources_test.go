package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// source is a Go file of the programs.
type source struct {
	*ast.File
	dir   string // below the root
	files *token.FileSet
}

// name returns the name of the file.
func (s *source) name() string { return filepath.Base(s.files.Position(s.Package).Filename) }

// position says where something in the source is.
func (s *source) position(p token.Pos) token.Position { return s.files.Position(p) }

// sourcesIn parses the Go files below some folders of the root, tests aside.
func sourcesIn(t *testing.T, folders ...string) (sources []source) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution|parser.ParseComments)
			sources = append(sources, source{file, dir, files})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sources
}
