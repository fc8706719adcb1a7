package conformance

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed checklist.txt
var checklist string

// Item is a line of the checklist.
type Item struct {
	ID          string // such as "NAT-07"
	Level       string // M must, S should, L later
	Requirement string
	Deviation   string // the difference and its reason; empty for none
	Open        bool   // Deviation says why the item is not built
}

var itemLine = regexp.MustCompile(`^([A-Z]+-[0-9]{2}) ([MSL]) (.+)$`)

// Items returns the checklist, in order.
func Items() ([]Item, error) { return parse(checklist) }

func parse(text string) ([]Item, error) {
	var items []Item
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if reason, open, ok := reasonOf(line); ok {
			if len(items) == 0 || items[len(items)-1].Deviation != "" {
				return nil, fmt.Errorf("line %d: %q has no item of its own above", number, line)
			}
			items[len(items)-1].Deviation, items[len(items)-1].Open = reason, open
			continue
		}
		m := itemLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d: %q is no item; write it such as \"NAT-07 M requirement\"", number, line)
		}
		if seen[m[1]] {
			return nil, fmt.Errorf("line %d: %s is there twice", number, m[1])
		}
		seen[m[1]] = true
		items = append(items, Item{ID: m[1], Level: m[2], Requirement: m[3]})
	}
	return items, nil
}

// reasonOf parses a line with the reason for a deviation, or for an item that is not built.
func reasonOf(line string) (reason string, open, ok bool) {
	if reason, ok = strings.CutPrefix(line, "deviates: "); ok {
		return reason, false, true
	}
	reason, ok = strings.CutPrefix(line, "open: ")
	return reason, ok, ok
}

var idInName = regexp.MustCompile(`(ACCT|SES|RSEC|DEL|NAT|LOG|PCP)-?([0-9]{2})`)

// idsIn returns the items in a name, in the form of Item.ID.
func idsIn(name string) []string {
	var ids []string
	for _, m := range idInName.FindAllStringSubmatch(name, -1) {
		ids = append(ids, m[1]+"-"+m[2])
	}
	return ids
}
