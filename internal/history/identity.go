package history

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/nat"
)

// saltSize is the number of octets of a salt: nobody guesses an erased identity by its hash.
const saltSize = 16

// fieldCount is the number of fields of an identity, each a string of octets.
const fieldCount = 6

// The fields of an identity, in their order. The user is first, so that identities in their
// order are in the order of users.
const (
	fieldUser = iota
	fieldInside
	fieldOrigin // Client, NAS, NASAddress
	fieldSession
	fieldStation
	fieldPrefixes
)

// holderData is an identity as it is stored: with its salt, or erased with its hash alone.
type holderData struct {
	identity []byte // fieldCount strings, each behind its length; nil of an erased one
	salt     [saltSize]byte
	hash     [sha256.Size]byte // of an erased one
}

// commitment returns the hash that stands for the holder in records, and that outlives it.
func (h *holderData) commitment() [sha256.Size]byte {
	if h.identity == nil {
		return h.hash
	}
	sum := sha256.New()
	sum.Write(h.salt[:])
	sum.Write(h.identity)
	return [sha256.Size]byte(sum.Sum(nil))
}

// erased returns the holder without identity and salt.
func (h *holderData) erased() holderData { return holderData{hash: h.commitment()} }

// The forms of a stored holder.
const (
	formIdentity = iota
	formErased
)

// append appends the stored form.
func (h *holderData) append(to []byte) []byte {
	if h.identity == nil {
		return append(append(to, formErased), h.hash[:]...)
	}
	to = append(append(to, formIdentity), h.salt[:]...)
	return append(to, h.identity...)
}

// parseHolder reads the stored form, which is all of raw. The holder keeps raw.
func parseHolder(raw []byte) (holderData, error) {
	var h holderData
	switch {
	case len(raw) == 1+sha256.Size && raw[0] == formErased:
		copy(h.hash[:], raw[1:])
		return h, nil
	case len(raw) > 1+saltSize && raw[0] == formIdentity:
		copy(h.salt[:], raw[1:])
		h.identity = raw[1+saltSize:]
		_, err := splitFields(h.identity)
		return h, err
	}
	return h, errors.New("holder: neither an identity nor an erased one")
}

// saltSource reads random salts in large pieces.
type saltSource struct {
	left []byte
	room [256 * saltSize]byte
}

func (s *saltSource) next() (salt [saltSize]byte) {
	if len(s.left) == 0 {
		_, _ = rand.Read(s.room[:]) // never fails: crypto/rand, since Go 1.24
		s.left = s.room[:]
	}
	copy(salt[:], s.left)
	s.left = s.left[saltSize:]
	return salt
}

// appendIdentity appends the fields of an identity.
func appendIdentity(to []byte, id *nat.Identity) []byte {
	to = appendString(to, id.UserName)
	inside := id.Inside.AsSlice()
	to = append(binary.AppendUvarint(to, uint64(len(inside))), inside...)

	to, at := beginString(to)
	to = appendString(to, id.Client)
	to = appendString(to, id.NAS)
	to = append(to, id.NASAddress.AsSlice()...)
	to = endString(to, at)

	to = appendString(to, id.AcctSessionID)
	to = appendString(to, id.CallingStationID)

	to, at = beginString(to)
	for _, p := range id.IPv6Prefixes {
		raw := p.Addr().As16()
		used := (max(p.Bits(), 0) + 7) / 8
		to = append(append(to, byte(max(p.Bits(), 0))), raw[:used]...)
	}
	return endString(to, at)
}

// parseIdentity is the reverse of appendIdentity.
func parseIdentity(raw []byte) (nat.Identity, error) {
	fields, err := splitFields(raw)
	if err != nil {
		return nat.Identity{}, err
	}
	id := nat.Identity{
		UserName: string(fields[fieldUser]), AcctSessionID: string(fields[fieldSession]),
		CallingStationID: string(fields[fieldStation]),
	}
	if id.Inside, err = parseAddr(fields[fieldInside]); err != nil {
		return id, fmt.Errorf("inside address: %w", err)
	}
	origin := fields[fieldOrigin]
	client, origin, err := cutString(origin)
	if err != nil {
		return id, err
	}
	name, origin, err := cutString(origin)
	if err != nil {
		return id, err
	}
	id.Client, id.NAS = string(client), string(name)
	if id.NASAddress, err = parseAddr(origin); err != nil {
		return id, fmt.Errorf("address of the NAS: %w", err)
	}
	for rest := fields[fieldPrefixes]; len(rest) > 0; {
		bits := int(rest[0])
		used := (bits + 7) / 8
		if bits > 128 || len(rest) < 1+used {
			return id, errors.New("IPv6 prefix: cut off")
		}
		var addr [16]byte
		copy(addr[:], rest[1:1+used])
		id.IPv6Prefixes = append(id.IPv6Prefixes, netip.PrefixFrom(netip.AddrFrom16(addr), bits))
		rest = rest[1+used:]
	}
	return id, nil
}

func parseAddr(raw []byte) (netip.Addr, error) {
	if len(raw) == 0 {
		return netip.Addr{}, nil
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return addr, fmt.Errorf("%d octets", len(raw))
	}
	return addr, nil
}

// splitFields returns the fields of an identity, which is all of raw.
func splitFields(raw []byte) (fields [fieldCount][]byte, err error) {
	for i := range fields {
		if fields[i], raw, err = cutString(raw); err != nil {
			return fields, err
		}
	}
	if len(raw) > 0 {
		return fields, fmt.Errorf("identity: %d octets too many", len(raw))
	}
	return fields, nil
}

// joinFields is the reverse of splitFields.
func joinFields(to []byte, fields *[fieldCount][]byte) []byte {
	for _, f := range fields {
		to = append(binary.AppendUvarint(to, uint64(len(f))), f...)
	}
	return to
}

// userKey returns the octets with which the identities of a user begin.
func userKey(user string) []byte { return appendString(nil, user) }

// userOf returns the userKey of an identity.
func userOf(identity []byte) []byte {
	_, rest, err := cutString(identity)
	if err != nil {
		return nil
	}
	return identity[:len(identity)-len(rest)]
}

func appendString(to []byte, s string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(s))), s...)
}

// cutString returns the string at the beginning of raw, behind its length, and the rest.
func cutString(raw []byte) (s, rest []byte, err error) {
	n, size := binary.Uvarint(raw)
	if size <= 0 || n > uint64(len(raw)-size) || size > 1 && raw[size-1] == 0 {
		return nil, nil, errors.New("string: cut off")
	}
	return raw[size : size+int(n)], raw[size+int(n):], nil
}

// beginString and endString put the length before a string that is appended in parts.
func beginString(to []byte) (with []byte, at int) { return append(to, 0), len(to) }

func endString(to []byte, at int) []byte {
	n := len(to) - at - 1
	if n < 0x80 {
		to[at] = byte(n)
		return to
	}
	part := bytes.Clone(to[at+1:])
	return append(binary.AppendUvarint(to[:at], uint64(n)), part...)
}
