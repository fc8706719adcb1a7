package wire

import (
	"encoding/binary"
	"net/netip"
)

// OptionCode names an option of PCP (RFC 6887 section 7.3).
type OptionCode uint8

// The options of RFC 6887 section 13.
const (
	ThirdParty    OptionCode = 1
	PreferFailure OptionCode = 2
	FilterOption  OptionCode = 3

	// optional is the first code that a server may ignore.
	optional OptionCode = 128
)

// Octets of the data of options, and of what stands before it.
const (
	optionHeader     = 4
	thirdPartyLength = 16
	filterLength     = 20
)

// Option is one option. Of its fields beside Code those of its kind are set.
type Option struct {
	Code   OptionCode
	Inside netip.Addr // ThirdParty: whose mapping it is
	Filter Filter     // FilterOption
}

// Filter lets a remote prefix send to a mapping (RFC 6887 section 13.3).
type Filter struct {
	Prefix netip.Prefix // IPv4; the zero Prefix removes the filters before
	Port   uint16       // 0 for all
}

// parseOptions reads the options of a request whose other fields are read. Options to be ignored
// are left out.
func parseOptions(b []byte, r *Request) (list []Option, err error) {
	seen := map[OptionCode]bool{}
	for len(b) > 0 {
		code, length := OptionCode(b[0]), int(binary.BigEndian.Uint16(b[2:])) // b has a multiple of 4 octets
		data, rest, ok := cut(b[optionHeader:], (length+3)&^3)
		if !ok {
			return list, MalformedOption
		}
		b = rest
		if !code.fits(r.Opcode) {
			if code < optional {
				return list, UnsuppOption
			}
			continue
		}
		if seen[code] && code != FilterOption {
			return list, MalformedOption
		}
		seen[code] = true
		o, err := parseOption(code, data[:length], r)
		if err != nil {
			return list, err
		}
		list = append(list, o)
	}
	return list, nil
}

// fits reports whether the option is known, and one of an opcode.
func (c OptionCode) fits(o Opcode) bool {
	switch c {
	case ThirdParty:
		return o == Map || o == Peer
	case PreferFailure, FilterOption:
		return o == Map
	}
	return false
}

func parseOption(code OptionCode, data []byte, r *Request) (o Option, err error) {
	o.Code = code
	switch code {
	case ThirdParty:
		if len(data) != thirdPartyLength {
			return o, MalformedOption
		}
		if o.Inside = netip.AddrFrom16([16]byte(data)).Unmap(); o.Inside == r.Client {
			return o, MalformedRequest // section 13.1
		}
	case PreferFailure:
		if len(data) != 0 || r.Lifetime == 0 || r.Outside.Port() == 0 {
			return o, MalformedOption // section 13.2
		}
	case FilterOption:
		if len(data) != filterLength || r.Lifetime == 0 {
			return o, MalformedOption // section 13.3
		}
		var ok bool
		if o.Filter, ok = parseFilter(data); !ok {
			return o, MalformedOption
		}
	}
	return o, nil
}

// mappedBits is the length of the prefix of IPv4 addresses in IPv6.
const mappedBits = 96

func parseFilter(data []byte) (f Filter, ok bool) {
	bits := int(data[1])
	if bits == 0 {
		return Filter{}, true
	}
	a := netip.AddrFrom16([16]byte(data[4:]))
	if bits < mappedBits || bits > 128 || !a.Is4In6() {
		return Filter{}, false
	}
	prefix := netip.PrefixFrom(a.Unmap(), bits-mappedBits).Masked()
	return Filter{prefix, binary.BigEndian.Uint16(data[2:])}, true
}

func appendOptions(b []byte, options []Option) []byte {
	for i := range options {
		b = appendOption(b, &options[i])
	}
	return b
}

func appendOption(b []byte, o *Option) []byte {
	b = append(b, byte(o.Code), 0)
	switch o.Code {
	case ThirdParty:
		return appendAddr(binary.BigEndian.AppendUint16(b, thirdPartyLength), o.Inside)
	case FilterOption:
		b = binary.BigEndian.AppendUint16(b, filterLength)
		if !o.Filter.Prefix.IsValid() {
			return append(b, make([]byte, filterLength)...)
		}
		b = append(b, 0, byte(mappedBits+o.Filter.Prefix.Bits()))
		b = binary.BigEndian.AppendUint16(b, o.Filter.Port)
		return appendAddr(b, o.Filter.Prefix.Addr())
	}
	return append(b, 0, 0)
}
