package conntrack

import "errors"

// Requests and notifications of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
const (
	subsystem  = 1 // NFNL_SUBSYS_CTNETLINK
	typeNew    = subsystem << 8
	typeGet    = typeNew | 1
	typeDelete = typeNew | 2
	typeStats  = typeNew | 5
)

// Multicast groups (linux/netfilter/nfnetlink_compat.h).
const (
	groupNew     = 1
	groupDestroy = 3
)

// Attributes of an entry, and of the attributes nested in it.
const (
	attrTupleOrig     = 1
	attrTupleReply    = 2
	attrStatus        = 3
	attrProtoInfo     = 4
	attrTimeout       = 7
	attrCountersOrig  = 9
	attrCountersReply = 10
	attrID            = 12
	attrZone          = 18

	attrTupleIP    = 1
	attrTupleProto = 2
	attrTupleZone  = 3

	attrIPv4Src = 1
	attrIPv4Dst = 2

	attrProtoNum     = 1
	attrProtoSrcPort = 2
	attrProtoDstPort = 3
	attrICMPID       = 4
	attrICMPType     = 5
	attrICMPCode     = 6

	attrInfoTCP  = 1
	attrTCPState = 1

	attrCounterPackets = 1
	attrCounterBytes   = 2
)

var errMalformed = errors.New("malformed ctnetlink message")
