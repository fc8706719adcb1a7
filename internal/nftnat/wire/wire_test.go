package wire

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

func TestBatchSplitsElements(t *testing.T) {
	const n = 20_000
	var b Batch
	b.Elements(NewElements, Op{"add element", "s"}, "t", "s", n, func(dst []byte, i int) []byte {
		return nlmsg.AppendUint32(dst, 1, uint32(i))
	})
	next, messages := uint32(0), 0
	for m := range nlmsg.Messages(b.seal(100)) {
		if m.Type != messageType(NewElements) {
			continue
		}
		messages++
		if want := uint32(100 + messages); m.Seq != want {
			t.Errorf("sequence is %d, want %d", m.Seq, want)
		}
		for _, element := range nlmsg.Attrs(nlmsg.Attr(m.Payload[nlmsg.FamilyLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if got := nlmsg.Uint32(nlmsg.Attr(element, 1)); got != next {
				t.Fatalf("element %d stands in the place of %d", got, next)
			}
			next++
		}
	}
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
