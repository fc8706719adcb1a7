package wire

import (
	"net/netip"
	"slices"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3162"
	"layeh.com/radius/rfc4818"
	"layeh.com/radius/rfc6911"
)

// maxListed bounds the kept values of an attribute that may occur several times, so that no
// packet grows into much more memory than it has octets.
const maxListed = 16

// Attributes is the content of one accounting request, by attribute. The values alias the
// packet and are nil when absent; of a repeated attribute the first counts.
// radius.ParseAttributes would copy every attribute of the packet, and most are never used.
type Attributes struct {
	userName         radius.Attribute
	nasAddress       radius.Attribute
	nasAddressV6     radius.Attribute
	nasIdentifier    radius.Attribute
	callingStationID radius.Attribute
	statusType       radius.Attribute
	sessionID        radius.Attribute
	sessionTime      radius.Attribute
	delayTime        radius.Attribute
	eventTimestamp   radius.Attribute
	inputOctets      radius.Attribute
	outputOctets     radius.Attribute
	inputGigawords   radius.Attribute
	outputGigawords  radius.Attribute
	terminateCause   radius.Attribute
	multiSessionID   radius.Attribute
	linkCount        radius.Attribute
	class            radius.Attribute // the first that is not empty
	messageAuth      radius.Attribute

	lists   // of what may occur several times
	service // what tells that it is of a service within a session

	proxyStates int // octets of all Proxy-State attributes, headers included
}

// lists has the values of attributes that may occur several times. Their room is kept
// from packet to packet.
type lists struct {
	framed      []netip.Addr // Framed-IP-Address, without those that are no address
	framed6     []netip.Addr
	prefixes6   []netip.Prefix
	delegated   []netip.Prefix
	moreClasses []radius.Attribute
}

// service tells of accounting within a session.
type service struct {
	isService       bool             // by a vendor's mark
	parentSessionID radius.Attribute // of the session around it, where the mark tells it
	parentIn        parentPlace      // else where it is told, if at all

	marks []VendorAttribute // besides those that are known
}

// A sizeRange bounds the octets of an attribute's value.
type sizeRange struct{ min, max uint8 }

// valueSizes holds the attributes whose value has a prescribed size; a request with another
// size there is discarded (RFC 2866 section 5). Types that are not listed may have any
// size.
var valueSizes = [256]sizeRange{
	rfc2865.NASIPAddress_Type:         {4, 4},
	rfc2865.FramedIPAddress_Type:      {4, 4},
	rfc2866.AcctStatusType_Type:       {4, 4},
	rfc2866.AcctDelayTime_Type:        {4, 4},
	rfc2866.AcctInputOctets_Type:      {4, 4},
	rfc2866.AcctOutputOctets_Type:     {4, 4},
	rfc2866.AcctSessionTime_Type:      {4, 4},
	rfc2866.AcctTerminateCause_Type:   {4, 4},
	rfc2866.AcctLinkCount_Type:        {4, 4},
	rfc2869.AcctInputGigawords_Type:   {4, 4},
	rfc2869.AcctOutputGigawords_Type:  {4, 4},
	rfc2869.EventTimestamp_Type:       {4, 4},
	rfc2869.MessageAuthenticator_Type: {16, 16},
	rfc3162.NASIPv6Address_Type:       {16, 16},
	rfc3162.FramedIPv6Prefix_Type:     {2, 18},
	rfc4818.DelegatedIPv6Prefix_Type:  {2, 18},
	rfc6911.FramedIPv6Address_Type:    {16, 16},
}

// Parse reads the attributes of a packet once and checks every length. marks are attributes
// that mark the accounting of a service, besides the known ones.
func (a *Attributes) Parse(p Packet, marks []VendorAttribute) *Malformed {
	*a = Attributes{
		lists: lists{
			framed: a.framed[:0], framed6: a.framed6[:0],
			prefixes6: a.prefixes6[:0], delegated: a.delegated[:0],
			moreClasses: a.moreClasses[:0],
		},
		service: service{marks: marks},
	}
	for rest := p.attributes(); len(rest) > 0; {
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			return errAttributeLength
		}
		kind, length := radius.Type(rest[0]), int(rest[1])
		value := radius.Attribute(rest[2:length:length])
		rest = rest[length:]
		if size := valueSizes[kind]; size.max != 0 && (len(value) < int(size.min) || len(value) > int(size.max)) {
			return errValueSize
		}
		slot := a.slot(kind)
		switch {
		case slot == nil:
			if err := a.readOther(kind, value); err != nil {
				return err
			}
		case *slot == nil:
			*slot = value
		case singleton(kind):
			return errRepeated
		}
	}
	return nil
}

// slot returns the field for an attribute that is stored unchanged, or nil.
func (a *Attributes) slot(kind radius.Type) *radius.Attribute {
	switch kind {
	case rfc2865.UserName_Type:
		return &a.userName
	case rfc2865.NASIPAddress_Type:
		return &a.nasAddress
	case rfc3162.NASIPv6Address_Type:
		return &a.nasAddressV6
	case rfc2865.NASIdentifier_Type:
		return &a.nasIdentifier
	case rfc2865.CallingStationID_Type:
		return &a.callingStationID
	case rfc2869.EventTimestamp_Type:
		return &a.eventTimestamp
	case rfc2869.MessageAuthenticator_Type:
		return &a.messageAuth
	case rfc2866.AcctStatusType_Type:
		return &a.statusType
	case rfc2866.AcctSessionID_Type:
		return &a.sessionID
	case rfc2866.AcctSessionTime_Type:
		return &a.sessionTime
	case rfc2866.AcctDelayTime_Type:
		return &a.delayTime
	case rfc2866.AcctInputOctets_Type:
		return &a.inputOctets
	case rfc2866.AcctOutputOctets_Type:
		return &a.outputOctets
	case rfc2869.AcctInputGigawords_Type:
		return &a.inputGigawords
	case rfc2869.AcctOutputGigawords_Type:
		return &a.outputGigawords
	case rfc2866.AcctTerminateCause_Type:
		return &a.terminateCause
	case rfc2866.AcctMultiSessionID_Type:
		return &a.multiSessionID
	case rfc2866.AcctLinkCount_Type:
		return &a.linkCount
	}
	return nil
}

// singleton reports whether a second attribute of this type makes the event or its session
// ambiguous.
func singleton(kind radius.Type) bool {
	switch kind {
	case rfc2866.AcctStatusType_Type, rfc2866.AcctSessionID_Type, rfc2869.MessageAuthenticator_Type:
		return true
	}
	return false
}

// readOther takes the attributes that need more than storing their value.
func (a *Attributes) readOther(kind radius.Type, value radius.Attribute) *Malformed {
	switch kind {
	case rfc2865.ProxyState_Type:
		a.proxyStates += 2 + len(value)
	case rfc2865.Class_Type:
		a.addClass(value)
	case rfc2865.VendorSpecific_Type:
		a.readVendors(value)
	case rfc2865.FramedIPAddress_Type:
		return a.addFramed(address(value))
	case rfc6911.FramedIPv6Address_Type:
		a.framed6 = appendNew(a.framed6, address(value))
	case rfc3162.FramedIPv6Prefix_Type:
		return addPrefix(&a.prefixes6, value)
	case rfc4818.DelegatedIPv6Prefix_Type:
		return addPrefix(&a.delegated, value)
	}
	return nil
}

// Framed-IP-Address values that are no address: the user selects one, the NAS selects one
// (RFC 2865 section 5.8).
var (
	userSelects = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	nasSelects  = netip.AddrFrom4([4]byte{255, 255, 255, 254})
)

// addFramed adds one more address of the session. An ignored address would stay online
// after its Stop, so a request with too many is refused, not cut short.
func (a *Attributes) addFramed(addr netip.Addr) *Malformed {
	if addr == userSelects || addr == nasSelects || addr.IsUnspecified() {
		return nil
	}
	if len(a.framed) == maxListed && !slices.Contains(a.framed, addr) {
		return errManyAddresses
	}
	a.framed = appendNew(a.framed, addr)
	return nil
}

// addPrefix adds an IPv6 prefix, which need not have all trailing octets (RFC 3162 section
// 2.3). Parse has checked the size of the value.
func addPrefix(list *[]netip.Prefix, value radius.Attribute) *Malformed {
	if value[1] > 128 {
		return errValueSize
	}
	var octets [16]byte
	copy(octets[:], value[2:])
	p := netip.PrefixFrom(netip.AddrFrom16(octets), int(value[1])).Masked()
	if p.Bits() > 0 { // else it carries no information
		*list = appendNew(*list, p)
	}
	return nil
}

// appendNew appends a value unless it is in the list or the list is full.
func appendNew[T comparable](list []T, value T) []T {
	if len(list) == maxListed || slices.Contains(list, value) {
		return list
	}
	return append(list, value)
}

// addClass keeps each Class in order; a session may have several (RFC 2865 section 5.25).
func (a *Attributes) addClass(value radius.Attribute) {
	switch {
	case len(value) == 0:
	case a.class == nil:
		a.class = value
	case len(a.moreClasses) < maxListed-1:
		a.moreClasses = append(a.moreClasses, value)
	}
}

// address returns the value of an address attribute; the zero Addr when absent.
func address(a radius.Attribute) netip.Addr {
	addr, _ := netip.AddrFromSlice(a)
	return addr
}

// HasMessageAuthenticator reports whether there is a Message-Authenticator.
func (a *Attributes) HasMessageAuthenticator() bool { return a.messageAuth != nil }
