package docs

import (
	"regexp"
	"slices"
	"testing"
)

// mostWithoutMap is the largest number of files of a package whose comment need not be a reading
// map.
const mostWithoutMap = 10

var goFile = regexp.MustCompile(`\b[a-z0-9_]+\.go\b`)

// TestReadingMaps: the comment of a package that names files names all of them, and none that is
// not there. That of a package with many files does.
func TestReadingMaps(t *testing.T) {
	files, named := map[string][]string{}, map[string][]string{}
	for _, s := range sourcesIn(t, "internal", "cmd") {
		if name := s.name(); name != "doc.go" {
			files[s.dir] = append(files[s.dir], name)
		}
		if s.Doc != nil {
			named[s.dir] = append(named[s.dir], goFile.FindAllString(s.Doc.Text(), -1)...)
		}
	}
	maps := 0
	for dir, there := range files {
		switch {
		case len(named[dir]) > 0:
			maps++
		case len(there) > mostWithoutMap:
			t.Errorf("%s has %d files, and no map of them in its comment", dir, len(there))
			continue
		default:
			continue
		}
		for _, name := range there {
			if !slices.Contains(named[dir], name) {
				t.Errorf("%s: its comment does not name %s", dir, name)
			}
		}
		for _, name := range named[dir] {
			if !slices.Contains(there, name) {
				t.Errorf("%s: its comment names %s, which is not there", dir, name)
			}
		}
	}
	if maps < 20 {
		t.Errorf("%d packages with a map, want at least 20: are their comments read?", maps)
	}
}
