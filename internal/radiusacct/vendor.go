package radiusacct

import (
	"bytes"
	"encoding/binary"

	"layeh.com/radius"
)

// Vendors (IANA private enterprise numbers) that account services within a
// subscriber's session under session identifiers of their own, and the
// attributes that tell so.
const (
	vendorCisco = 9
	ciscoAVPair = 1 // Cisco-AVPair

	vendorERX         = 4874 // Juniper's BNGs
	erxServiceSession = 83   // ERX-Service-Session: name of the service
)

// ciscoParent begins the Cisco-AVPair that ties the accounting of a service or
// flow to its session (ISG).
var ciscoParent = []byte("parent-session-id=")

// takeVendors reads a Vendor-Specific attribute (RFC 2865 section 5.26). What is
// wrong within concerns the vendor alone: it is skipped, and the request is good.
func (a *attributes) takeVendors(value radius.Attribute) {
	if len(value) < 4 {
		return
	}
	vendor := binary.BigEndian.Uint32(value)
	if vendor != vendorCisco && vendor != vendorERX {
		return // others may lay out their attributes differently
	}
	for rest := value[4:]; len(rest) >= 2 && rest[1] >= 2 && int(rest[1]) <= len(rest); rest = rest[rest[1]:] {
		a.takeVendor(vendor, rest[0], rest[2:rest[1]])
	}
}

func (a *attributes) takeVendor(vendor uint32, kind byte, value radius.Attribute) {
	switch {
	case vendor == vendorERX && kind == erxServiceSession && len(value) > 0:
		a.service = true
	case vendor == vendorCisco && kind == ciscoAVPair:
		if parent, ok := bytes.CutPrefix(value, ciscoParent); ok {
			a.service, a.parentSessionID = true, parent
		}
	}
}
