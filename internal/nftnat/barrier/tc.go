package barrier

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tcMessage is struct tcmsg: the object of a message of traffic control.
type tcMessage struct{ index, handle, parent, info uint32 }

const tcMessageLen = 20

func (m tcMessage) append(dst []byte) []byte {
	dst = append(dst, unix.AF_UNSPEC, 0, 0, 0)
	for _, v := range []uint32{m.index, m.handle, m.parent, m.info} {
		dst = binary.NativeEndian.AppendUint32(dst, v)
	}
	return dst
}

// parseTC reads the object of a message, and the kind of qdisc or filter.
func parseTC(m netlink.Message) (at tcMessage, kind string) {
	if len(m.Data) < tcMessageLen {
		return tcMessage{}, ""
	}
	for i, v := range []*uint32{&at.index, &at.handle, &at.parent, &at.info} {
		*v = binary.NativeEndian.Uint32(m.Data[4+4*i:])
	}
	d, err := netlink.NewAttributeDecoder(m.Data[tcMessageLen:])
	if err != nil {
		return at, ""
	}
	for d.Next() {
		if d.Type() == tcaKind {
			kind = d.String()
		}
	}
	return at, kind
}

// chainOf reads the chain of a filter.
func chainOf(m netlink.Message) uint32 {
	d, err := netlink.NewAttributeDecoder(m.Data[tcMessageLen:])
	if err != nil {
		return 0
	}
	for d.Next() {
		if d.Type() == tcaChain {
			return d.Uint32()
		}
	}
	return 0
}

// dropsOf reads the packets that the filters of a qdisc dropped.
func dropsOf(m netlink.Message) (drops uint32) {
	const at = 8 // struct gnet_stats_queue: qlen, backlog, drops
	d, err := netlink.NewAttributeDecoder(m.Data[tcMessageLen:])
	if err != nil {
		return 0
	}
	for d.Next() {
		if d.Type() != tcaStats {
			continue
		}
		d.Nested(func(d *netlink.AttributeDecoder) error {
			for d.Next() {
				if queue := d.Bytes(); d.Type() == tcaQueue && len(queue) >= at+4 {
					drops = binary.NativeEndian.Uint32(queue[at:])
				}
			}
			return nil
		})
	}
	return drops
}

// programOf reads the program of a filter; nil if it is no BPF filter.
func programOf(m netlink.Message) (program []byte) {
	if _, kind := parseTC(m); kind != "bpf" {
		return nil
	}
	d, err := netlink.NewAttributeDecoder(m.Data[tcMessageLen:])
	if err != nil {
		return nil
	}
	for d.Next() {
		if d.Type() != tcaOptions {
			continue
		}
		d.Nested(func(d *netlink.AttributeDecoder) error {
			for d.Next() {
				if d.Type() == bpfOps {
					program = d.Bytes()
				}
			}
			return nil
		})
	}
	return program
}

// execute sends a message that changes something and waits for the kernel's acknowledgement.
func (b *Barrier) execute(typ netlink.HeaderType, flags netlink.HeaderFlags, at tcMessage, kind string, options func(*netlink.AttributeEncoder) error) error {
	e := netlink.NewAttributeEncoder()
	e.String(tcaKind, kind)
	if options != nil {
		e.Nested(tcaOptions, options)
	}
	attributes, err := e.Encode()
	if err != nil {
		return err
	}
	_, err = b.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(at.append(nil), attributes...),
	})
	return err
}

// ask sends a message that changes nothing and returns the answers.
func (b *Barrier) ask(typ netlink.HeaderType, flags netlink.HeaderFlags, at tcMessage) ([]netlink.Message, error) {
	return b.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | flags},
		Data:   at.append(nil),
	})
}

// index finds an interface by its name.
func (b *Barrier) index(name string) (uint32, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.IFLA_IFNAME, name)
	attributes, err := e.Encode()
	if err != nil {
		return 0, err
	}
	replies, err := b.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   append(make([]byte, unix.SizeofIfInfomsg), attributes...),
	})
	if errors.Is(err, unix.ENODEV) || err == nil && len(replies) == 0 {
		return 0, errNoInterface
	}
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	_, index := linkName(replies[0])
	return index, nil
}

// linkName reads the name and the index of an interface.
func linkName(m netlink.Message) (name string, index uint32) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return "", 0
	}
	d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return "", 0
	}
	for d.Next() {
		if d.Type() == unix.IFLA_IFNAME {
			name = d.String()
		}
	}
	return name, binary.NativeEndian.Uint32(m.Data[4:])
}
