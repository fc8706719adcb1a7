package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttributesAreReadBack(t *testing.T) {
	b := AppendString(nil, 1, "odd")
	b = AppendUint32(b, 2, 0xfeedface)
	start := len(b)
	b = BeginNested(b, 3)
	b = AppendAttr(b, 4, []byte{1, 2, 3, 4, 5})
	b = AppendAttr(b, 5, nil)
	b = EndNested(b, start)

	if len(b)%unix.NLA_ALIGNTO != 0 {
		t.Errorf("length %d is not aligned", len(b))
	}
	if got := String(Attr(b, 1)); got != "odd" {
		t.Errorf("string is %q", got)
	}
	if got := Uint32(Attr(b, 2)); got != 0xfeedface {
		t.Errorf("number is %x", got)
	}
	if got := Attr(Attr(b, 3), 4); !bytes.Equal(got, []byte{1, 2, 3, 4, 5}) {
		t.Errorf("nested value is %x", got)
	}
	if got := Attr(Attr(b, 3), 5); got == nil || len(got) != 0 {
		t.Errorf("empty value is %v", got)
	}
	if got := Attr(b, 9); got != nil {
		t.Errorf("absent value is %x", got)
	}
}

// FuzzAttrs checks that any bytes are taken, and that what is read of them and
// written again is read the same.
func FuzzAttrs(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{8, 0, 1, 128, 4, 0, 1, 0})
	f.Add([]byte{5, 0, 1, 0, 7})
	f.Add([]byte{255, 255, 1, 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		type attr struct {
			typ   uint16
			value []byte
		}
		read := func(b []byte) (list []attr) {
			for typ, value := range Attrs(b) {
				list = append(list, attr{typ, value})
			}
			return list
		}
		first := read(b)
		var again []byte
		for _, a := range first {
			again = AppendAttr(again, a.typ, a.value)
		}
		same := slices.EqualFunc(first, read(again), func(x, y attr) bool {
			return x.typ == y.typ && bytes.Equal(x.value, y.value)
		})
		if !same {
			t.Errorf("%x is read as %v, written as %x", b, first, again)
		}
		parseReplies(b, func(r reply) bool { r.errno(); r.detail(); return true })
	})
}

func TestBatchSplitsElements(t *testing.T) {
	const n = 20_000
	var b Batch
	b.Elements(NewElements, Op{"add element", "s"}, "t", "s", n, func(dst []byte, i int) []byte {
		return AppendUint32(dst, 1, uint32(i))
	})
	next, messages := uint32(0), 0
	parseReplies(b.seal(100), func(r reply) bool {
		if r.typ != messageType(NewElements) {
			return true
		}
		messages++
		if want := uint32(100 + messages); r.sequence != want {
			t.Errorf("sequence is %d, want %d", r.sequence, want)
		}
		for _, element := range Attrs(Attr(r.payload[familyHeader:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if got := Uint32(Attr(element, 1)); got != next {
				t.Fatalf("element %d stands in the place of %d", got, next)
			}
			next++
		}
		return true
	})
	if next != n || messages < 2 {
		t.Errorf("%d elements in %d messages, want %d in several", next, messages, n)
	}
	if got := len(b.seal(1)); got != b.Size() {
		t.Errorf("Size is %d, the bytes are %d", b.Size(), got)
	}
	b.Reset()
	if !b.Empty() {
		t.Error("a batch that was reset is not empty")
	}
}

func TestErrorSaysWhatFailed(t *testing.T) {
	err := error(&Error{Op: Op{"add rule to chain", "guard"}, Errno: unix.EINVAL, Detail: "no such thing"})
	if want := "add rule to chain guard: invalid argument (no such thing)"; err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
	if !errors.Is(err, unix.EINVAL) {
		t.Error("errors.Is does not see the number")
	}
}
