package docs

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// A meaning is the one meaning of a word in names, and the packages that may have it.
type meaning struct {
	meaning  string
	packages []string // below internal; those below one of them too
}

// oneMeaning has the words that had several meanings. In another package, another word says
// more: docs/glossary.md has the words of each.
var oneMeaning = map[string]meaning{
	"hold":      {"the quarantine of a block, or of a port of a mapping", []string{"lsn", "nat", "config", "rig", "subscriberdb/codec", "portmap"}},
	"observe":   {"the removal mode that changes nothing", []string{"inspect"}},
	"observed":  {"a removal that was not carried out", []string{"inspect", "metrics", "session"}},
	"ending":    {"the deletion of a record", []string{"subscriber", "inspect", "session", "control"}},
	"standing":  {"", nil},
	"verdict":   {"the result of an accounting event; of nftables, where a packet goes", []string{"subscriber", "subscriberdb", "metrics", "nftnat"}},
	"guard":     {"the bound on removals; of nftables, the chain of that name", []string{"guard", "config", "lifecycle", "reconcile", "subscriberdb", "rig", "nftnat"}},
	"drift":     {"a difference between database, engine and kernel", []string{"inspect", "reconcile", "control", "metrics"}},
	"take":      {"", nil},
	"give":      {"", nil},
	"proof":     {"that no session is left; of the history, that a record is in it", []string{"nat", "conntrack", "nftnat", "subscriberdb/codec", "history"}},
	"receipt":   {"the account of a removal", []string{"nat", "lsn", "lifecycle", "subscriberdb/codec", "control", "inspect", "session"}},
	"direction": {"who began a session", []string{"nat", "nftnat"}},
	"bury":      {"", nil},
	"grave":     {"", nil},
	"witness":   {"", nil},
	"patrol":    {"", nil},
	"courier":   {"", nil},
	"parcel":    {"", nil},
	"errand":    {"", nil},
	"trip":      {"a round trip to Redis", []string{"subscriberdb/txn"}},
	"company":   {"", nil},
}

// TestOneWordOneMeaning: types, functions, fields, constants and variables of the programs
// use the words of oneMeaning in their packages only.
func TestOneWordOneMeaning(t *testing.T) {
	for _, s := range sourcesIn(t, "internal") {
		for _, name := range namesIn(s.File) {
			for _, word := range wordsOf(name.Name) {
				if m, ok := oneMeaning[word]; ok && !m.in(strings.TrimPrefix(s.dir, "internal/")) {
					t.Errorf("%s: %s: the word %q is for %s", s.position(name.Pos()), name.Name, word, m)
				}
			}
		}
	}
}

func (m meaning) in(pkg string) bool {
	return slices.ContainsFunc(m.packages, func(p string) bool { return pkg == p || strings.HasPrefix(pkg, p+"/") })
}

func (m meaning) String() string {
	if m.meaning == "" {
		return "nothing: it says too little"
	}
	return m.meaning + ", in " + strings.Join(m.packages, ", ")
}

// namesIn returns the names that a file declares outside of functions, fields included.
func namesIn(file *ast.File) (names []*ast.Ident) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name)
		case *ast.GenDecl:
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.TypeSpec:
					names = append(names, n.Name)
				case *ast.ValueSpec:
					names = append(names, n.Names...)
				case *ast.Field:
					names = append(names, n.Names...)
				case *ast.FuncLit:
					return false
				}
				return true
			})
		}
	}
	return names
}

// wordsOf splits a name at its capitals: "URLOf" is "url", "of".
func wordsOf(name string) (words []string) {
	letters := []rune(name)
	begin := 0
	for i := 1; i < len(letters); i++ {
		upper := unicode.IsUpper(letters[i])
		if upper && (!unicode.IsUpper(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1])) {
			words, begin = append(words, strings.ToLower(string(letters[begin:i]))), i
		}
	}
	return append(words, strings.ToLower(string(letters[begin:])))
}

func TestWordsOf(t *testing.T) {
	for name, want := range map[string]string{
		"hold": "hold", "HoldUntil": "hold until", "URLOf": "url of", "nextHTTPServer": "next http server", "x": "x",
	} {
		if got := strings.Join(wordsOf(name), " "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
