package wire

import (
	"bytes"
	"encoding/binary"
	"slices"

	"layeh.com/radius"
)

// Vendors (IANA private enterprise numbers) that account services within a subscriber's
// session under session identifiers of their own, and the attributes that mark this. An
// attribute is a mark only if its vendor documents that the accounting of the session
// itself has none: a session taken for a service would be without NAT.
//
// Huawei's HW-Service-Info (2011-185) and HW-Policy-Name (2011-95) are no marks: the
// accounting of the session itself has them too, if "radius-attribute include
// edsg-service-name accounting-request" is configured (NE40E Configuration Guide, EDSG).
// For Ericsson's Service-Name (2352-190) and for ZTE there is no such documentation.
// Operators who know the configuration of such BNGs set ServiceMarks of radiusacct.Client.
const (
	vendorCisco          = 9
	ciscoAVPair          = 1   // Cisco-AVPair
	ciscoParentSessionID = 52  // Cisco-Parent-Session-Id, with the same meaning as the AV pair
	ciscoServiceInfo     = 251 // Cisco-Service-Info

	vendorERX         = 4874 // Juniper's BNGs
	erxServiceSession = 83   // ERX-Service-Session: name of the service

	vendorNokia        = 6527 // SR OS, Alcatel-Lucent before
	alcSubServActivate = 151  // Alc-Sub-Serv-Activate: name of the service instance
)

var (
	// ciscoParent begins the Cisco-AVPair that ties the accounting of a service or
	// flow to its session (Intelligent Services Gateway Configuration Guide,
	// "Configuring ISG Accounting").
	ciscoParent = []byte("parent-session-id=")
	// ciscoServiceName begins the Cisco-Service-Info with the name of a service, which
	// occurs only in the accounting of connections to services (Service Selection Gateway,
	// "RADIUS Accounting Records").
	ciscoServiceName = []byte("N")
)

// A VendorAttribute names an attribute within Vendor-Specific (RFC 2865 section 5.26), as
// in 26-6527-151.
type VendorAttribute struct {
	Vendor uint32
	Type   uint8
}

// parentPlace is the place of the surrounding session's Acct-Session-Id in the accounting
// of a service, besides its mark.
type parentPlace uint8

const (
	parentNowhere        parentPlace = iota
	parentInMultiSession             // it is the Acct-Multi-Session-Id
	parentInSession                  // it is the Acct-Session-Id up to its last colon
)

// readVendors reads a Vendor-Specific attribute (RFC 2865 section 5.26). An error within it
// concerns only the vendor: the rest is skipped, and the request is valid.
func (a *Attributes) readVendors(value radius.Attribute) {
	if len(value) < 4 {
		return
	}
	vendor := binary.BigEndian.Uint32(value)
	if !a.marksServices(vendor) {
		return // others may lay out their attributes differently
	}
	for rest := value[4:]; len(rest) >= 2 && rest[1] >= 2 && int(rest[1]) <= len(rest); rest = rest[rest[1]:] {
		a.readVendor(vendor, rest[0], rest[2:rest[1]])
	}
}

// marksServices reports whether a vendor has attributes that mark services.
func (a *Attributes) marksServices(vendor uint32) bool {
	switch vendor {
	case vendorCisco, vendorERX, vendorNokia:
		return true
	}
	return slices.ContainsFunc(a.marks, func(m VendorAttribute) bool { return m.Vendor == vendor })
}

func (a *Attributes) readVendor(vendor uint32, kind byte, value radius.Attribute) {
	if len(value) == 0 {
		return
	}
	switch vendor {
	case vendorCisco:
		a.readCisco(kind, value)
	case vendorERX:
		// The Acct-Session-Id of a service is that of its session, a colon and a number
		// (JunosE Broadband Access Configuration Guide, "Configuring RADIUS Accounting for
		// Service Manager").
		if kind == erxServiceSession {
			a.isService, a.parentIn = true, parentInSession
		}
	case vendorNokia:
		// It is in all accounting of service instances, with the session's identifier as
		// Acct-Multi-Session-Id (7750 SR RADIUS Attributes Reference Guide, "Subscriber
		// service accounting").
		if kind == alcSubServActivate {
			a.isService, a.parentIn = true, parentInMultiSession
		}
	}
	if slices.Contains(a.marks, VendorAttribute{vendor, kind}) {
		a.isService = true
	}
}

func (a *Attributes) readCisco(kind byte, value radius.Attribute) {
	switch kind {
	case ciscoAVPair:
		if parent, ok := bytes.CutPrefix(value, ciscoParent); ok {
			a.isService, a.parentSessionID = true, parent
		}
	case ciscoParentSessionID:
		a.isService, a.parentSessionID = true, value
	case ciscoServiceInfo:
		if name, ok := bytes.CutPrefix(value, ciscoServiceName); ok && len(name) > 0 {
			a.isService = true
		}
	}
}
