package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// heldItems are the parts of the conformance checklist that this test checks, with the
// number of their items.
var heldItems = map[string]int{"ACCT": 30, "SES": 24, "RSEC": 4}

// itemName finds items in the names of tests (TestX_ACCT07) and of their cases
// ("ACCT-07 ...", "ACCT07/...").
var itemName = regexp.MustCompile(`(?:func Test\w*|"[^"\n]*)(?:ACCT|SES|RSEC)-?[0-9]{2}[^("\n]*`)

var item = regexp.MustCompile(`(ACCT|SES|RSEC)-?([0-9]{2})`)

// TestConformanceItemsAreNamed: each item of the checked parts is in the name of a test.
func TestConformanceItemsAreNamed(t *testing.T) {
	named := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range itemName.FindAll(text, -1) {
			for _, m := range item.FindAllSubmatch(name, -1) {
				named[string(m[1])+"-"+string(m[2])] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for part, items := range heldItems {
		for i := 1; i <= items; i++ {
			if id := fmt.Sprintf("%s-%02d", part, i); !named[id] {
				t.Errorf("no test names %s", id)
			}
		}
	}
}
