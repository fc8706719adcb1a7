package conformance

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	items, err := parse("# words\n\nNAT-01 M maps\nNAT-02 L pools | rest\nopen: nobody asked\nDEL-03 S goes\ndeviates: stays\n")
	want := []Item{
		{ID: "NAT-01", Level: "M", Requirement: "maps"},
		{ID: "NAT-02", Level: "L", Requirement: "pools | rest", Deviation: "nobody asked", Open: true},
		{ID: "DEL-03", Level: "S", Requirement: "goes", Deviation: "stays"},
	}
	if err != nil || !slices.Equal(items, want) {
		t.Errorf("%v, %v, want %v", items, err, want)
	}
}

func TestParseComplains(t *testing.T) {
	for text, want := range map[string]string{
		"NAT-1 M maps":                             `line 1: "NAT-1 M maps" is no item`,
		"NAT-01 X maps":                            `is no item`,
		"NAT-01 M maps\nNAT-01 M maps":             `line 2: NAT-01 is there twice`,
		"open: nobody asked":                       `line 1: "open: nobody asked" has no item of its own above`,
		"NAT-01 M maps\nopen: a\ndeviates: indeed": `line 3: "deviates: indeed" has no item of its own above`,
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestItemsAreNamed: each item is in the name of a test or a case, unless the checklist says
// why not; and an item that is not built is in none.
func TestItemsAreNamed(t *testing.T) {
	items, err := Items()
	if err != nil {
		t.Fatal(err)
	}
	sources, err := ReadSources("../..")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, item := range items {
		known[item.ID] = true
		switch named := sources.Named[item.ID]; {
		case !named && item.Deviation == "":
			t.Errorf("no test names %s", item.ID)
		case named && item.Open:
			t.Errorf("%s is said to be open, and a test names it", item.ID)
		}
	}
	for id := range sources.Named {
		if !known[id] {
			t.Errorf("a test names %s, which is not in the checklist", id)
		}
	}
}
