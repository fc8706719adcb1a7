package conformance

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Sources are the tests of a tree that name items.
type Sources struct {
	Tests    []string        // names of functions, sorted, each once
	Packages []string        // their folders as patterns for the go command ("./internal/lsn"), sorted
	Named    map[string]bool // ids of the items in the names of tests and of their cases
}

// own is the folder of this package: its tests name items without holding them.
var own = filepath.Join("test", "conformance")

// ReadSources finds the tests of the module at root that name items: in their own name, or at
// the beginning of the name of a case.
func ReadSources(root string) (*Sources, error) {
	tests, packages := map[string]bool{}, map[string]bool{}
	s := &Sources{Named: map[string]bool{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || path == filepath.Join(root, own)):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		found := s.addFile(file)
		if len(found) == 0 {
			return nil
		}
		for _, name := range found {
			tests[name] = true
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		packages["./"+filepath.ToSlash(folder)] = true
		return err
	})
	s.Tests, s.Packages = slices.Sorted(maps.Keys(tests)), slices.Sorted(maps.Keys(packages))
	return s, err
}

// addFile notes the items that a file names, and returns the tests that do. A table of cases
// beside the functions counts for all tests of the file.
func (s *Sources) addFile(file *ast.File) []string {
	var found, all []string
	table := false
	for _, decl := range file.Decls {
		f, isFunction := decl.(*ast.FuncDecl)
		isTest := isFunction && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test")
		ids := casesIn(decl)
		if isTest {
			all = append(all, f.Name.Name)
			ids = append(ids, idsIn(f.Name.Name)...)
			if len(ids) > 0 {
				found = append(found, f.Name.Name)
			}
		} else if len(ids) > 0 {
			table = true
		}
		for _, id := range ids {
			s.Named[id] = true
		}
	}
	if table {
		return all
	}
	return found
}

// casesIn returns the items in texts that begin with one, as names of cases do ("SES-02 Start
// twice").
func casesIn(n ast.Node) []string {
	var ids []string
	ast.Inspect(n, func(n ast.Node) bool {
		text, ok := n.(*ast.BasicLit)
		if !ok || text.Kind != token.STRING {
			return true
		}
		value, err := strconv.Unquote(text.Value)
		if at := idInName.FindStringIndex(value); err == nil && at != nil && at[0] == 0 {
			ids = append(ids, idsIn(value)...)
		}
		return true
	})
	return ids
}
