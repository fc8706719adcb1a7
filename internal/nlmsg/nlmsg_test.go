package nlmsg_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

func TestAttributesAreReadBack(t *testing.T) {
	b := nlmsg.AppendString(nil, 1, "odd")
	b = nlmsg.AppendUint32(b, 2, 0xfeedface)
	start := len(b)
	b = nlmsg.BeginNested(b, 3)
	b = nlmsg.AppendAttr(b, 4, []byte{1, 2, 3, 4, 5})
	b = nlmsg.AppendAttr(b, 5, nil)
	b = nlmsg.EndNested(b, start)

	if len(b)%unix.NLA_ALIGNTO != 0 {
		t.Errorf("length %d is not aligned", len(b))
	}
	if got := nlmsg.String(nlmsg.Attr(b, 1)); got != "odd" {
		t.Errorf("string is %q", got)
	}
	if got := nlmsg.Uint32(nlmsg.Attr(b, 2)); got != 0xfeedface {
		t.Errorf("number is %x", got)
	}
	if got := nlmsg.Attr(nlmsg.Attr(b, 3), 4); !bytes.Equal(got, []byte{1, 2, 3, 4, 5}) {
		t.Errorf("nested value is %x", got)
	}
	if got := nlmsg.Attr(nlmsg.Attr(b, 3), 5); got == nil || len(got) != 0 {
		t.Errorf("empty value is %v", got)
	}
	if got := nlmsg.Attr(b, 9); got != nil {
		t.Errorf("absent value is %x", got)
	}
}

// FuzzAttrs checks that any bytes are accepted, and that attributes read, written and read
// again are the same.
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
			for typ, value := range nlmsg.Attrs(b) {
				list = append(list, attr{typ, value})
			}
			return list
		}
		first := read(b)
		var again []byte
		for _, a := range first {
			again = nlmsg.AppendAttr(again, a.typ, a.value)
		}
		same := slices.EqualFunc(first, read(again), func(x, y attr) bool {
			return x.typ == y.typ && bytes.Equal(x.value, y.value)
		})
		if !same {
			t.Errorf("%x is read as %v, written as %x", b, first, again)
		}
	})
}

func TestNumbersAreReadBack(t *testing.T) {
	b := nlmsg.AppendUint8(nil, 1, 7)
	b = nlmsg.AppendUint16(b, 2, 0x1234)
	b = nlmsg.AppendAttr(b, 3, []byte{0, 0, 0, 1, 0, 0, 0, 2})
	if got := nlmsg.Attr(b, 1); !bytes.Equal(got, []byte{7}) {
		t.Errorf("octet is %x", got)
	}
	if got := nlmsg.Attr(b, 2); !bytes.Equal(got, []byte{0x12, 0x34}) {
		t.Errorf("16 bits are %x", got)
	}
	if got := nlmsg.Uint64(nlmsg.Attr(b, 3)); got != 1<<32|2 {
		t.Errorf("64 bits are %x", got)
	}
	if nlmsg.Uint32([]byte{1, 2, 3}) != 0 || nlmsg.Uint64([]byte{1, 2, 3, 4, 5, 6, 7}) != 0 {
		t.Error("a short number is not 0")
	}
}

func TestAttributeThatIsTooLong(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("its length was cut")
		}
	}()
	nlmsg.EndNested(nlmsg.AppendAttr(nlmsg.BeginNested(nil, 1), 2, make([]byte, 1<<16)), 0)
}

// refusal is the kernel's refusal of the message numbered 8, with a text.
func refusal() []byte {
	b := nlmsg.Begin(nil, unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, 8)
	b = binary.NativeEndian.AppendUint32(b, uint32(1<<32-int64(unix.ENOENT)))
	b = nlmsg.Begin(b, 1, 0, 8)
	b = nlmsg.AppendString(b, unix.NLMSGERR_ATTR_MSG, "no such thing")
	return nlmsg.End(b, 0)
}

func TestMessagesAreReadBack(t *testing.T) {
	b := nlmsg.End(nlmsg.AppendFamily(nlmsg.Begin(nil, 0x0a01, unix.NLM_F_REQUEST, 1), unix.AF_INET, 10), 0)
	nlmsg.SetSeq(b, 7)
	nlmsg.AddFlags(b, unix.NLM_F_ACK)
	b = append(b, refusal()...)
	all := slices.Collect(nlmsg.Messages(b))
	if len(all) != 2 {
		t.Fatalf("%d messages: %v", len(all), all)
	}
	first := all[0]
	if first.Type != 0x0a01 || first.Flags != unix.NLM_F_REQUEST|unix.NLM_F_ACK || first.Seq != 7 ||
		!bytes.Equal(first.Payload, []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 10}) {
		t.Errorf("request is %+v", first)
	}
	if code, ok := all[1].Errno(); !ok || code != unix.ENOENT || all[1].Seq != 8 {
		t.Errorf("refusal is %+v: %v, %t", all[1], code, ok)
	}
	if got := all[1].Detail(); got != "no such thing" {
		t.Errorf("detail is %q", got)
	}
	if _, ok := (nlmsg.Message{Payload: []byte{1, 2, 3}}).Errno(); ok {
		t.Error("three octets are a code")
	}
}

// FuzzMessages checks that any bytes are accepted, and that messages read, written and read
// again are the same.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{})
	f.Add(refusal())
	f.Add(append(refusal(), refusal()...))
	f.Add(refusal()[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		first := slices.Collect(nlmsg.Messages(b))
		var again []byte
		for _, m := range first {
			m.Errno()
			m.Detail()
			for len(again)%unix.NLMSG_ALIGNTO != 0 {
				again = append(again, 0)
			}
			start := len(again)
			again = nlmsg.End(append(nlmsg.Begin(again, m.Type, m.Flags, m.Seq), m.Payload...), start)
		}
		same := slices.EqualFunc(first, slices.Collect(nlmsg.Messages(again)), func(x, y nlmsg.Message) bool {
			return x.Type == y.Type && x.Flags == y.Flags && x.Seq == y.Seq && bytes.Equal(x.Payload, y.Payload)
		})
		if !same {
			t.Errorf("%x is read as %v, written as %x", b, first, again)
		}
	})
}
