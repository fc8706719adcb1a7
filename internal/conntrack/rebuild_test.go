package conntrack

import (
	"strings"
	"testing"
)

// script runs commands on an index of one key. new1 and end1 are events about the entry
// with identifier 1, list1 shows it in the dump. take remembers the known entry for a
// delete, and gone means that the kernel no longer has it. begin and finish are those of a
// rebuild.
func script(t *testing.T, words string) (id uint32) {
	t.Helper()
	x := newIndex(testSpans(t))
	f := flow{orig: key{src: firstInside, dst: 1, proto: 17}, reply: key{src: 1, dst: 2}}
	var taken []entryRef
	for word := range strings.FieldsSeq(words) {
		f.id = uint32(word[len(word)-1] - '0')
		switch strings.TrimRight(word, "123") {
		case "new":
			x.createdLocked(&f)
		case "end":
			x.destroyedLocked(&f)
		case "list":
			x.listed([]flow{f})
		case "seen":
			taken = []entryRef{x.target(&f, f.owners(x.inside))}
		case "take":
			taken = x.collect(nil, firstInside)
		case "gone":
			x.forget(taken)
		case "begin":
			x.beginRebuild()
		case "finish":
			_ = x.finishRebuild(func(unseen []entryRef) ([]entryRef, error) { return unseen, nil })
		default:
			t.Fatalf("word %q", word)
		}
		if err := x.check(); err != nil {
			t.Fatalf("after %q: %v", word, err)
		}
	}
	if slot := x.lookup.find(f.orig, &x.records); slot != 0 {
		return x.records.At(slot).id
	}
	return 0
}

// An audit of a complete index counts its errors. An index that lacked an entry is
// incomplete until another audit finds none missing.
func TestAuditTellsDrift(t *testing.T) {
	all := func(unseen []entryRef) ([]entryRef, error) { return unseen, nil }
	none := func([]entryRef) ([]entryRef, error) { return nil, nil }
	f := flow{orig: key{src: firstInside, dst: 1, proto: 17}, reply: key{src: 1, dst: 2}, id: 1}
	for _, test := range []struct {
		why           string
		known, listed bool // before the audit; by its dump
		told          bool // by an event, after the dump
		probe         func([]entryRef) ([]entryRef, error)
		want          indexErrors
		left          int
	}{
		{"all is well", true, true, false, none, indexErrors{}, 1},
		{"it lacked one", false, true, false, none, indexErrors{missed: 1}, 1},
		{"it lacked one whose event was under way", false, true, true, none, indexErrors{}, 1},
		{"it had one too many", true, false, false, all, indexErrors{stale: 1}, 0},
		{"the dump missed one", true, false, false, none, indexErrors{}, 1},
	} {
		t.Run(test.why, func(t *testing.T) {
			x := newIndex(testSpans(t))
			x.beginRebuild()
			if err := x.finishRebuild(none); err != nil || !x.covers(nil) {
				t.Fatalf("complete %t: %v", x.covers(nil), err)
			}
			if test.known {
				x.createdLocked(&f)
			}
			x.beginRebuild()
			if test.listed {
				x.listed([]flow{f})
			}
			if test.told {
				x.createdLocked(&f)
			}
			if err := x.finishRebuild(test.probe); err != nil {
				t.Fatal(err)
			}
			if x.errors() != test.want || x.covers(nil) != (test.want.missed == 0) || x.count(firstInside) != test.left {
				t.Errorf("errors %+v, complete %t, %d entries; want %+v and %d",
					x.errors(), x.covers(nil), x.count(firstInside), test.want, test.left)
			}
			x.beginRebuild()
			x.listed([]flow{f}[:test.left])
			if err := x.finishRebuild(none); err != nil || !x.covers(nil) {
				t.Errorf("after the next: complete %t, %v", x.covers(nil), err)
			}
		})
	}
}

func TestOrderOfEventsDumpsAndDeletes(t *testing.T) {
	for _, test := range []struct {
		why, words string
		want       uint32 // identifier left in the index, 0 for none
	}{
		{"an end nobody knew the begin of", "end1", 0},
		{"a begin after an end that was silent", "new1 new2", 2},
		{"a late end of an earlier incarnation", "new1 new2 end1", 2},
		{"the dump does not raise the dead", "new1 begin end1 list1 finish", 0},
		{"nor one that was never known", "begin end1 list1 finish", 0},
		{"the dead may come again with the same identifier", "new1 begin end1 new1 list1 finish", 1},
		{"also when the dump shows it first", "new1 begin end1 list1 new1 finish", 1},
		{"and when its event comes late", "new1 begin end1 list1 finish new1", 1},
		{"what began during the dump stays", "begin new1 finish", 1},
		{"what the dump does not show is gone", "new1 begin finish", 0},
		{"what it shows stays", "new1 begin list1 finish", 1},
		{"a successor shown by the dump", "new1 begin list2 finish", 2},
		{"a successor shown by the dump, the old end late", "new1 begin list2 end1 finish new2", 2},
		{"the old end after the rebuild", "new1 begin list2 finish end1", 2},
		{"an event is newer than the dump", "new1 begin new2 list1 finish", 2},
		{"the dead of one rebuild are forgotten in the next", "begin end1 finish begin list1 finish", 1},
		{"a rebuild after one that was broken off", "new1 begin list1 begin finish", 0},
		{"a delete", "new1 take gone", 0},
		{"a delete of what the end event told first", "new1 take end1 gone", 0},
		{"a delete spares the successor", "new1 take end1 new2 gone", 2},
		{"even one with the same identifier", "new1 take end1 new1 gone", 1},
		{"its own end event later", "new1 take gone end1", 0},
		{"its successor's begin later", "new1 take gone end1 new1", 1},
		{"the dump does not raise the deleted", "new1 begin take gone list1 finish", 0},
		{"nor what only a table pass had seen", "begin seen1 gone list1 finish", 0},
		{"a table pass's view of another incarnation", "new2 seen1 gone", 2},
	} {
		t.Run(strings.ReplaceAll(test.words, " ", "_"), func(t *testing.T) {
			if got := script(t, test.words); got != test.want {
				t.Errorf("%s: left is %d, want %d", test.why, got, test.want)
			}
		})
	}
}
