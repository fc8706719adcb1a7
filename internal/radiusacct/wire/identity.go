package wire

import "net/netip"

// NASIdentity selects the attributes that identify a NAS within a client, or within the
// realm of several.
type NASIdentity uint8

// The identities. Even if attributes are missing, the text is the same for each packet of a
// NAS, and different for different NASes.
const (
	// NASIdentifier is NAS-Identifier, else the NAS's address, else the address
	// that the packet came from (strongSwan's early Stop names none).
	NASIdentifier NASIdentity = iota
	// NASAddress is NAS-IP(v6)-Address, else the address that the packet came from.
	NASAddress
	// NASBoth is NAS-Identifier and NAS-IP(v6)-Address with an "@" between them, either of
	// which may be missing ("MikroTik@", "@192.0.2.1"); without both, the address that the
	// packet came from is the second. An address has no "@", so the last one is the
	// separator.
	NASBoth
)

// Valid reports whether it is one of the identities.
func (i NASIdentity) Valid() bool { return i <= NASBoth }

// appendNAS appends the identity of the NAS.
func (a *Attributes) appendNAS(b []byte, identity NASIdentity, source netip.Addr) []byte {
	addr := a.nas()
	switch {
	case identity == NASBoth:
		b = append(append(b, a.nasIdentifier...), '@')
		if !addr.IsValid() && len(a.nasIdentifier) > 0 {
			return b
		}
	case identity == NASIdentifier && len(a.nasIdentifier) > 0:
		return append(b, a.nasIdentifier...)
	}
	if !addr.IsValid() {
		addr = source
	}
	return addr.AppendTo(b)
}
