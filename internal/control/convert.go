package control

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// All conversions between domain and proto messages are in this file, except
// those of single fields, which are in fields.go. Functions named to... make a
// message; functions named from... read and check one.

var (
	bindingStates = map[nat.State]pb.BindingState{
		nat.Active:   pb.BindingState_BINDING_STATE_ACTIVE,
		nat.Draining: pb.BindingState_BINDING_STATE_DRAINING,
		nat.Cut:      pb.BindingState_BINDING_STATE_CUT,
		nat.Held:     pb.BindingState_BINDING_STATE_HELD,
	}
	eventKinds = map[inspect.EventKind]pb.EventKind{
		inspect.EventCreated:  pb.EventKind_EVENT_KIND_CREATED,
		inspect.EventUpdated:  pb.EventKind_EVENT_KIND_UPDATED,
		inspect.EventDeleted:  pb.EventKind_EVENT_KIND_DELETED,
		inspect.EventBound:    pb.EventKind_EVENT_KIND_BOUND,
		inspect.EventPending:  pb.EventKind_EVENT_KIND_PENDING,
		inspect.EventDraining: pb.EventKind_EVENT_KIND_DRAINING,
		inspect.EventCut:      pb.EventKind_EVENT_KIND_CUT,
		inspect.EventReaped:   pb.EventKind_EVENT_KIND_REAPED,
		inspect.EventReleased: pb.EventKind_EVENT_KIND_RELEASED,
		inspect.EventGrace:    pb.EventKind_EVENT_KIND_GRACE,
		inspect.EventObserved: pb.EventKind_EVENT_KIND_OBSERVED,

		inspect.EventRemovalHeld:    pb.EventKind_EVENT_KIND_REMOVAL_HELD,
		inspect.EventRemovalRefused: pb.EventKind_EVENT_KIND_REMOVAL_REFUSED,
		inspect.EventLimitReached:   pb.EventKind_EVENT_KIND_LIMIT_REACHED,
		inspect.EventBlockAdded:     pb.EventKind_EVENT_KIND_BLOCK_ADDED, inspect.EventBlockReturned: pb.EventKind_EVENT_KIND_BLOCK_RETURNED,
		inspect.EventBlockRefused: pb.EventKind_EVENT_KIND_BLOCK_REFUSED,
		inspect.EventListed:       pb.EventKind_EVENT_KIND_LISTED,
	}
	gapCauses = map[inspect.GapCause]pb.GapCause{
		inspect.GapBehind:    pb.GapCause_GAP_CAUSE_BEHIND,
		inspect.GapRestarted: pb.GapCause_GAP_CAUSE_RESTARTED,
		inspect.GapFeed:      pb.GapCause_GAP_CAUSE_FEED_LOST,
	}
	reasons = map[subscriber.Reason]pb.Reason{
		subscriber.ReasonNone:              pb.Reason_REASON_UNSPECIFIED,
		subscriber.ReasonStop:              pb.Reason_REASON_STOP,
		subscriber.ReasonNASRestart:        pb.Reason_REASON_NAS_RESTART,
		subscriber.ReasonExpired:           pb.Reason_REASON_EXPIRED,
		subscriber.ReasonAdmin:             pb.Reason_REASON_ADMIN,
		subscriber.ReasonSuperseded:        pb.Reason_REASON_SUPERSEDED,
		subscriber.ReasonRemovedInDatabase: pb.Reason_REASON_REMOVED_IN_DATABASE,
		subscriber.ReasonPoolRemoved:       pb.Reason_REASON_POOL_REMOVED,
	}
	removalModes = map[inspect.RemovalMode]pb.RemovalMode{
		inspect.RemovalOn:      pb.RemovalMode_REMOVAL_MODE_ON,
		inspect.RemovalOff:     pb.RemovalMode_REMOVAL_MODE_OFF,
		inspect.RemovalObserve: pb.RemovalMode_REMOVAL_MODE_OBSERVE,
	}
	proofs = map[nat.Proof]pb.Proof{
		nat.ProofIndex: pb.Proof_PROOF_INDEX,
		nat.ProofTable: pb.Proof_PROOF_TABLE,
	}
	removalKinds = map[inspect.RemovalKind]pb.RemovalKind{
		inspect.RemovalHeld:     pb.RemovalKind_REMOVAL_KIND_HELD,
		inspect.RemovalGrace:    pb.RemovalKind_REMOVAL_KIND_GRACE,
		inspect.RemovalObserved: pb.RemovalKind_REMOVAL_KIND_OBSERVED,
	}
	poolOrigins = map[inspect.PoolOrigin]pb.PoolOrigin{
		inspect.PoolConfigured: pb.PoolOrigin_POOL_ORIGIN_CONFIGURATION,
		inspect.PoolRunTime:    pb.PoolOrigin_POOL_ORIGIN_RUN_TIME,
		inspect.PoolFormer:     pb.PoolOrigin_POOL_ORIGIN_FORMER,
	}
	poolChanges = map[inspect.PoolChange]pb.PoolChange{
		inspect.PoolAdded:   pb.PoolChange_POOL_CHANGE_ADDED,
		inspect.PoolDrained: pb.PoolChange_POOL_CHANGE_DRAINED,
		inspect.PoolRemoved: pb.PoolChange_POOL_CHANGE_REMOVED,
	}
	subscriberStates = map[inspect.SubscriberState]pb.SubscriberState{
		inspect.SubscriberActive:      pb.SubscriberState_SUBSCRIBER_STATE_ACTIVE,
		inspect.SubscriberPending:     pb.SubscriberState_SUBSCRIBER_STATE_PENDING,
		inspect.SubscriberEnding:      pb.SubscriberState_SUBSCRIBER_STATE_ENDING,
		inspect.SubscriberRemovalHeld: pb.SubscriberState_SUBSCRIBER_STATE_REMOVAL_HELD,
		inspect.SubscriberUnconfirmed: pb.SubscriberState_SUBSCRIBER_STATE_UNCONFIRMED,
	}
	topMeasures = map[inspect.TopBy]pb.TopBy{
		inspect.TopSessions:    pb.TopBy_TOP_BY_SESSIONS,
		inspect.TopNewSessions: pb.TopBy_TOP_BY_NEW_SESSIONS,
		inspect.TopPorts:       pb.TopBy_TOP_BY_PORTS,
		inspect.TopOctets:      pb.TopBy_TOP_BY_OCTETS,
		inspect.TopBlocks:      pb.TopBy_TOP_BY_BLOCKS,
	}
	directions = map[nat.Direction]pb.Direction{
		nat.Outbound: pb.Direction_DIRECTION_OUTBOUND,
		nat.Inbound:  pb.Direction_DIRECTION_INBOUND,
	}
)

func toSubscriber(s *inspect.Subscriber) *pb.Subscriber {
	m := toRecord(&s.Record)
	m.Pending = s.Pending
	if s.Binding != nil {
		m.Binding = toBinding(s.Binding)
	}
	return m
}

func toRecord(r *subscriber.Record) *pb.Subscriber {
	return &pb.Subscriber{
		Group:            r.Group,
		InsideAddress:    addrText(r.Inside),
		UserName:         toText(r.UserName),
		Nas:              toText(r.NAS),
		AcctSessionId:    toText(r.AcctSessionID),
		CallingStationId: toText(r.CallingStationID),
		StartedAt:        timestamp(r.StartedAt),
		UpdatedAt:        timestamp(r.UpdatedAt),
		ExpiresAt:        timestamp(r.ExpiresAt),
		InputOctets:      r.InputOctets,
		OutputOctets:     r.OutputOctets,
		Unconfirmed:      r.Unconfirmed,
		Etag:             r.Version,
		Client:           toText(r.Client),
		NasAddress:       addrText(r.NASAddress),
		RemovalHeld:      reasons[r.RemovalHeld],
		Class:            toText(r.Class),
		MoreClasses:      toTexts(r.MoreClasses),

		FramedIpv6Addresses: texts(r.FramedIPv6Addresses),
		FramedIpv6Prefixes:  texts(r.FramedIPv6Prefixes),
		DelegatedPrefixes:   texts(r.DelegatedPrefixes),
	}
}

func toBinding(b *inspect.Binding) *pb.Binding {
	why := b.Why()
	m := &pb.Binding{
		Group:          b.Group,
		InsideAddress:  addrText(b.Inside),
		OutsideAddress: addrText(b.Outside),
		FirstPort:      uint32(b.First),
		LastPort:       uint32(b.Last),
		State:          bindingStates[b.State],
		UserName:       toText(b.UserName),
		AcctSessionId:  toText(b.AcctSessionID),
		AllocatedAt:    timestamp(b.AllocatedAt),
		ReleasedAt:     timestamp(b.ReleasedAt),
		Sessions:       count(b.Sessions),
		HoldUntil:      timestamp(b.HoldUntil),
		Receipt:        toReceipt(b.Receipt),
		GraceUntil:     timestamp(b.GraceUntil),
		Blocks:         toPortBlocks(b.Blocks),
		GrownAt:        timestamp(b.GrownAt),
		Reason:         reasons[why.Reason],
		TerminateCause: why.Cause,
	}
	if b.PortsMeasured {
		m.PortsInUse, m.PortsPeak = toPortUse(b.PortsInUse), toPortUse(b.PortsPeak)
	}
	return m
}

func toPortBlocks(blocks nat.Blocks) []*pb.PortBlock {
	list := make([]*pb.PortBlock, 0, blocks.Len())
	for b := range blocks.All() {
		list = append(list, &pb.PortBlock{FirstPort: uint32(b.First), LastPort: uint32(b.Last)})
	}
	return list
}

// toReceipt returns nil for none.
func toReceipt(r *nat.Receipt) *pb.Receipt {
	if r == nil {
		return nil
	}
	return &pb.Receipt{
		CutAt:           timestamp(r.CutAt),
		ReapedAt:        timestamp(r.ReapedAt),
		ReleasedAt:      timestamp(r.ReleasedAt),
		ElementsRemoved: count(r.Elements),
		SessionsDeleted: count(r.Deleted),
		Proof:           proofs[r.Proof],
		Reason:          reasons[r.Reason],
		TerminateCause:  r.Cause,
	}
}

func toEvent(e *inspect.Event) *pb.SubscriberEvent {
	var limits []string
	for _, l := range e.Limits {
		limits = append(limits, l.String())
	}
	return &pb.SubscriberEvent{
		Limits:     limits,
		At:         timestamp(e.At),
		Kind:       eventKinds[e.Kind],
		Reason:     reasons[e.Reason],
		Subscriber: toSubscriber(&e.Subscriber),

		Late:           e.Late,
		TerminateCause: e.Cause,
		SessionsEnded:  count(e.SessionsEnded),
	}
}

func toGap(g *inspect.Gap) *pb.WatchGap {
	return &pb.WatchGap{Cause: gapCauses[g.Cause], Group: g.Group, Missed: g.Missed, ListAgain: g.ListAgain}
}

// fromEventKinds reads kinds of events; none is the empty set.
func fromEventKinds(field string, kinds []pb.EventKind) (inspect.EventKinds, error) {
	var set inspect.EventKinds
	for _, m := range kinds {
		known := false
		for kind, message := range eventKinds {
			if known = message == m && kind != inspect.EventListed; known {
				set |= inspect.KindsOf(kind)
				break
			}
		}
		if !known {
			return 0, invalid(field, "%v is no kind of event that can be watched", m)
		}
	}
	return set, nil
}

func toDrop(c nat.DropCount) *pb.Drop {
	return &pb.Drop{
		Reason: string(c.Reason), Direction: string(c.Direction), Packets: c.Packets, Bytes: c.Bytes,
		BytesCounted: c.CountsBytes(), Meaning: c.Meaning(),
	}
}

func toPool(u *inspect.Pool) *pb.Pool {
	return &pb.Pool{
		Group:         u.Group,
		OutsidePrefix: u.Outside.String(),
		BlocksTotal:   count(u.Total),
		BlocksUsed:    count(u.Used),
		BlocksHeld:    count(u.Held),
		BlocksFree:    count(u.Free),
		Draining:      u.Draining,
		Origin:        poolOrigins[u.Origin],
		Change:        poolChanges[u.Change],
		ChangedAt:     timestamp(u.ChangedAt),
	}
}

// addPorts adds the port use of a pool.
func addPorts(m *pb.Pool, p *inspect.PoolPorts) {
	m.PortsInUse, m.PortsPeak = toPortUse(p.Current), toPortUse(p.Peak)
	m.SubscriberPorts = &pb.SubscriberPorts{
		Subscribers: count(p.Counts.Users()),
		P50:         count(p.Counts.Percentile(50)),
		P90:         count(p.Counts.Percentile(90)),
		P99:         count(p.Counts.Percentile(99)),
		Max:         count(p.Counts.Percentile(100)),
	}
}

func toPortUse(u nat.PortUse) *pb.PortUse {
	return &pb.PortUse{Tcp: count(u.TCP), Udp: count(u.UDP), Icmp: count(u.ICMP)}
}

func toAdvice(b *inspect.BlockSizes) *pb.BlockSizeAdvice {
	m := &pb.BlockSizeAdvice{
		Group:                b.Group,
		BlockSize:            count(b.BlockSize),
		RecommendedBlockSize: count(b.Recommended),
		OverflowTarget:       b.Target,
		ObservedSince:        timestamp(b.Since),
		ObservedUntil:        timestamp(b.Until),
		BindingsObserved:     count(b.Bindings),
		BindingsFull:         count(b.Full),
		BindingsLive:         count(b.Live),
		Notes:                b.Notes,
	}
	for _, s := range b.Sizes {
		m.Sizes = append(m.Sizes, &pb.BlockSizeOutcome{
			BlockSize:          count(s.BlockSize),
			BindingsOverflowed: count(s.Overflowed),
			OverflowShare:      s.Share,
			Subscribers:        count(s.Subscribers),
			LowerBound:         s.LowerBound,
		})
	}
	return m
}

func toSession(s *inspect.Session) *pb.Session {
	m := &pb.Session{
		Group:          s.Group,
		Protocol:       pb.Protocol(s.Protocol),
		InsideAddress:  addrText(s.Inside.Addr()),
		InsidePort:     uint32(s.Inside.Port()),
		OutsideAddress: addrText(s.Outside.Addr()),
		OutsidePort:    uint32(s.Outside.Port()),
		RemoteAddress:  addrText(s.Remote.Addr()),
		RemotePort:     uint32(s.Remote.Port()),
		State:          s.State,
		Packets:        s.Packets,
		Bytes:          s.Bytes,
		Direction:      directions[s.Direction],
	}
	if !s.Offloaded {
		m.ExpiresIn = durationpb.New(s.ExpiresIn)
	}
	return m
}

func toSettings(s *inspect.Settings) *pb.Settings {
	t := s.IdleTimeouts
	return &pb.Settings{
		SubscriberSessionRemoval: s.Removal == inspect.RemovalOn,
		RemovalMode:              removalModes[s.Removal],
		IdleTimeouts: &pb.IdleTimeouts{
			TcpEstablished: durationpb.New(t.TCPEstablished),
			TcpTransitory:  durationpb.New(t.TCPTransitory),
			Udp:            durationpb.New(t.UDP),
			Icmp:           durationpb.New(t.ICMP),

			TcpPartialOpen:  durationpb.New(t.TCPPartialOpen),
			TcpPartialClose: durationpb.New(t.TCPPartialClose),
		},
	}
}

func toStatusMessage(s *inspect.Status) *pb.Status {
	m := &pb.Status{
		Node:                  s.Node,
		Version:               s.Version,
		StartedAt:             timestamp(s.StartedAt),
		Ready:                 s.NotReady == "",
		NotReadyReason:        s.NotReady,
		DatabaseUp:            s.DatabaseUp,
		DatabaseSuspectReason: s.DatabaseSuspect,
		Sessions:              count(s.Sessions),
		ReconciledAt:          timestamp(s.ReconciledAt),
		Drifts:                count(s.Drifts),
		Settings:              toSettings(&s.Settings),
	}
	for i := range s.Groups {
		m.Groups = append(m.Groups, toGroupStatus(&s.Groups[i]))
	}
	if f := &s.Foreign; f.Flows > 0 {
		m.ForeignTranslations = &pb.ForeignTranslations{
			Flows: count(f.Flows), NewestAt: timestamp(f.At), InsideAddress: addrText(f.Inside), SeenAs: addrText(f.SeenAs), NatChains: f.Chains,
		}
	}
	if f := &s.Flowtables; len(f.Others) > 0 || f.Mode == "accept" || f.Mode == "own" {
		m.Flowtables = &pb.Flowtables{Mode: f.Mode, Others: f.Others, Refused: f.Refused}
	}
	return m
}

func toGroupStatus(g *inspect.GroupStatus) *pb.GroupStatus {
	held := 0
	for _, n := range g.RemovalsHeld {
		held += n
	}
	return &pb.GroupStatus{
		Name:        g.Name,
		Restoring:   g.Restoring,
		Subscribers: count(g.Subscribers),
		Pending:     count(g.Pending),
		Active:      count(g.Active),
		Draining:    count(g.Draining),
		Cut:         count(g.Cut),
		Held:        count(g.Held),

		RemovalsHeld: count(held),

		QuarantinedBlocks: count(g.Quarantined), QuarantinedUntil: timestamp(g.QuarantinedUntil),
	}
}

func toDrift(d *inspect.Drift) *pb.Drift {
	return &pb.Drift{
		Kind:          string(d.Kind),
		Group:         d.Group,
		InsideAddress: addrText(d.Inside),
		What:          d.What,
		Mended:        d.Mended,
	}
}

func toRemoval(r *inspect.Removal) *pb.Removal {
	return &pb.Removal{
		Kind:          removalKinds[r.Kind],
		Group:         r.Record.Group,
		InsideAddress: addrText(r.Record.Inside),
		Reason:        reasons[r.Reason],
		Since:         timestamp(r.Since),
		DueAt:         timestamp(r.DueAt),
		UserName:      toText(r.Record.UserName),
		Nas:           toText(r.Record.NAS),
		AcctSessionId: toText(r.Record.AcctSessionID),
		Sessions:      count(r.Sessions),
	}
}

var mappingKinds = map[nat.MappingKind]pb.MappingKind{
	nat.MappingStatic: pb.MappingKind_MAPPING_KIND_STATIC, nat.MappingPCP: pb.MappingKind_MAPPING_KIND_PCP,
}

func toMapping(m *inspect.Mapping) *pb.Mapping {
	p := &pb.Mapping{
		Group: m.Group, Kind: mappingKinds[m.Kind], Protocol: pb.Protocol(m.Outside.Protocol),
		UserName: toText(m.Owner.UserName), InsidePort: uint32(m.InsidePort),
		OutsideAddress: m.Outside.Addr().String(), OutsidePort: uint32(m.Outside.Port()),
		CreatedAt: timestamp(m.CreatedAt), ExpiresAt: timestamp(m.ExpiresAt), HoldUntil: timestamp(m.HoldUntil),
		Configured: m.Configured, InForce: m.InForce,
	}
	if m.Owner.Inside.IsValid() {
		p.InsideAddress = m.Owner.Inside.String()
	}
	if m.Inside.IsValid() {
		p.PresentAddress = m.Inside.String()
	}
	return p
}

func toEnding(e *inspect.Ending) *pb.Ending {
	r := &e.Record
	m := &pb.Ending{
		Group:            r.Group,
		InsideAddress:    addrText(r.Inside),
		UserName:         toText(r.UserName),
		Nas:              toText(r.NAS),
		Client:           toText(r.Client),
		AcctSessionId:    toText(r.AcctSessionID),
		CallingStationId: toText(r.CallingStationID),
		StartTime:        timestamp(r.StartedAt),
		EndTime:          timestamp(e.At),
		Reason:           reasons[e.Reason],
		TerminateCause:   e.Cause,
		Receipt:          toReceipt(e.Receipt),
		ResumeTime:       timestamp(e.ResumedAt),
		InputOctets:      r.InputOctets,
		OutputOctets:     r.OutputOctets,
	}
	if e.Blocks.Outside.IsValid() {
		m.OutsideAddress, m.Blocks = e.Blocks.Outside.String(), toPortBlocks(e.Blocks)
	}
	return m
}

func toExplanation(e *inspect.Explanation, now time.Time) *pb.Explanation {
	m := &pb.Explanation{
		InsideAddress: addrText(e.Inside),
		Group:         e.Group,
		Sessions: &pb.SessionCounts{
			Tcp: count(e.Sessions.TCP), Udp: count(e.Sessions.UDP), Icmp: count(e.Sessions.ICMP), Other: count(e.Sessions.Other),
		},
		NewSession:               &pb.NewSession{Passes: true},
		EndingsCompleteSinceTime: timestamp(e.Since),
		Advice:                   e.Advice(now),
	}
	if d, dropped := e.NewSession(); dropped {
		m.NewSession = &pb.NewSession{DropReason: string(d.Reason), Meaning: d.Meaning()}
	}
	if e.Subscriber != nil {
		m.Subscriber = toSubscriber(e.Subscriber)
	}
	if e.Binding != nil {
		m.Binding = toBinding(e.Binding)
	}
	if e.NAS != nil {
		m.Nas = toNAS(e.NAS)
	}
	if e.LastEnding != nil {
		m.LastEnding = toEnding(e.LastEnding)
	}
	for i := range e.Limits {
		m.Limits = append(m.Limits, toLimitUse(&e.Limits[i]))
	}
	for _, d := range e.Drops {
		m.Drops = append(m.Drops, toDrop(d))
	}
	for i := range e.Mappings {
		m.Mappings = append(m.Mappings, toMapping(&e.Mappings[i]))
	}
	return m
}

func toLimitUse(l *inspect.LimitUse) *pb.LimitUse {
	m := &pb.LimitUse{Limit: l.Limit, Most: count(l.Most), RefuseTime: timestamp(l.RefusedAt)}
	if l.Measured {
		used := count(l.Used)
		m.Used = &used
	}
	return m
}

func toTop(t *inspect.Top) *pb.TopSubscriber {
	m := &pb.TopSubscriber{
		Value:         t.Value,
		Group:         t.Who.Group,
		InsideAddress: addrText(t.Inside),
		UserName:      toText(t.Who.UserName),
		Nas:           toText(t.Who.NAS),
		Sessions:      count(t.Sessions),
		Octets:        t.Who.InputOctets + t.Who.OutputOctets,
	}
	if b := t.Who.Binding; b != nil {
		m.OutsideAddress, m.Blocks = addrText(b.Outside), count(b.Len())
	}
	return m
}

func toNAS(n *inspect.NAS) *pb.Nas {
	m := &pb.Nas{
		Client:        toText(n.Client),
		Name:          toText(n.Name),
		Subscribers:   count(n.Subscribers),
		LastHeardAt:   timestamp(n.LastHeard),
		ClockUnheeded: n.Clock.Unheeded,
		LastRestartAt: timestamp(n.LastRestart),
	}
	if n.Clock.Known {
		m.ClockOffset = durationpb.New(n.Clock.Offset)
	}
	if len(n.Refused) > 0 {
		m.Refused = make(map[string]uint64, len(n.Refused))
	}
	for verdict, events := range n.Refused {
		m.Refused[toText(verdict)] = events
	}
	if e := n.Endings; e.Subscribers > 0 {
		m.RestartEndings = &pb.NasRestartEndings{
			Subscribers: count(e.Subscribers), FirstEndTime: timestamp(e.First), LastEndTime: timestamp(e.Last),
		}
	}
	if n.SameAs != (inspect.NASKey{}) {
		m.SameAs = &pb.NasName{Client: toText(n.SameAs.Client), Name: toText(n.SameAs.Name)}
	}
	return m
}

func fromRemovalFilter(m *pb.RemovalFilter) (inspect.RemovalFilter, error) {
	f := inspect.RemovalFilter{Group: m.GetGroup(), NAS: toOctets(m.GetNas())}
	var err error
	if f.Inside, err = fromPrefix("filter.inside", m.GetInside()); err != nil {
		return f, err
	}
	f.Reason, err = fromEnum("filter.reason", m.GetReason(), reasons)
	return f, err
}

// protoEnum is an enum of the API.
type protoEnum interface {
	~int32
	fmt.Stringer
}

// fromEnum reads the value of an enum; UNSPECIFIED is the zero value.
func fromEnum[D ~uint8, M protoEnum](field string, m M, messages map[D]M) (D, error) {
	if m == 0 {
		return 0, nil
	}
	for d, message := range messages {
		if message == m {
			return d, nil
		}
	}
	return 0, invalid(field, "%d is no value; write one of %s", m, valuesOf(messages))
}

// valuesOf lists the values of an enum.
func valuesOf[D comparable, M fmt.Stringer](messages map[D]M) string {
	var names []string
	for _, m := range messages {
		names = append(names, m.String())
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// fromSubscriber reads the writable fields of a subscriber put by hand.
func fromSubscriber(m *pb.Subscriber) (subscriber.Record, error) {
	inside, err := fromAddr("subscriber.inside_address", m.GetInsideAddress())
	if err != nil {
		return subscriber.Record{}, err
	}
	r := subscriber.Record{Key: subscriber.Key{Group: m.GetGroup(), Inside: inside}}
	for _, f := range []struct {
		to         *string
		name, text string
	}{
		{&r.UserName, "subscriber.user_name", m.GetUserName()},
		{&r.NAS, "subscriber.nas", m.GetNas()},
		{&r.AcctSessionID, "subscriber.acct_session_id", m.GetAcctSessionId()},
		{&r.CallingStationID, "subscriber.calling_station_id", m.GetCallingStationId()},
	} {
		if *f.to, err = fromText(f.name, f.text); err != nil {
			return subscriber.Record{}, err
		}
	}
	r.Version = m.GetEtag()
	r.ExpiresAt, err = fromTimestamp("subscriber.expires_at", m.GetExpiresAt())
	return r, err
}

// recordQuery is the common part of requests that select subscribers by their records.
type recordQuery interface {
	GetGroup() string
	GetNas() string
	GetUserName() string
	GetInside() string
	GetUserNamePrefix() string
	GetCallingStationId() string
	GetAcctSessionId() string
}

func fromRecordQuery(q recordQuery) (inspect.SubscriberFilter, error) {
	inside, err := fromPrefix("inside", q.GetInside())
	return inspect.SubscriberFilter{
		Group:         q.GetGroup(),
		NAS:           toOctets(q.GetNas()),
		UserName:      toOctets(q.GetUserName()),
		UserPrefix:    toOctets(q.GetUserNamePrefix()),
		Station:       inspect.NewStation(toOctets(q.GetCallingStationId())),
		AcctSessionID: toOctets(q.GetAcctSessionId()),
		Inside:        inside,
	}, err
}

// subscriberQuery is the common part of requests that select subscribers by what NAT does for
// them too.
type subscriberQuery interface {
	recordQuery
	outsideQuery
	GetState() pb.SubscriberState
	GetRemote() string
	GetRemotePort() uint32
}

func fromSubscriberQuery(q subscriberQuery) (inspect.SubscriberFilter, error) {
	f, err := fromRecordQuery(q)
	if err != nil {
		return f, err
	}
	if f.State, err = fromEnum("state", q.GetState(), subscriberStates); err != nil {
		return f, err
	}
	if f.Remote, err = fromPrefix("remote", q.GetRemote()); err != nil {
		return f, err
	}
	if f.RemotePort, err = fromPort("remote_port", q.GetRemotePort()); err != nil {
		return f, err
	}
	f.Outside, f.Port, err = fromOutside(q)
	return f, err
}

// outsideQuery is the part of requests that names a public address and port.
type outsideQuery interface {
	GetOutside() string
	GetOutsidePort() uint32
}

func fromOutside(q outsideQuery) (netip.Prefix, nat.Port, error) {
	outside, err := fromPrefix("outside", q.GetOutside())
	if err != nil {
		return outside, 0, err
	}
	port, err := fromPort("outside_port", q.GetOutsidePort())
	if err == nil && port != 0 && !outside.IsSingleIP() {
		err = invalid("outside_port", "needs outside to be one address; give both")
	}
	return outside, nat.Port(port), err
}

func fromBindingQuery(q *pb.ListBindingsRequest) (inspect.BindingFilter, error) {
	f := inspect.BindingFilter{
		Group: q.GetGroup(), UserName: toOctets(q.GetUserName()), UserPrefix: toOctets(q.GetUserNamePrefix()),
		AcctSessionID: toOctets(q.GetAcctSessionId()),
	}
	var err error
	if f.Inside, err = fromPrefix("inside", q.GetInside()); err != nil {
		return f, err
	}
	if f.Outside, f.Port, err = fromOutside(q); err != nil {
		return f, err
	}
	f.State, err = fromEnum("state", q.GetState(), bindingStates)
	return f, err
}

func fromSessionFilter(m *pb.SessionFilter) (inspect.SessionFilter, error) {
	f := inspect.SessionFilter{Group: m.GetGroup()}
	if p := m.GetProtocol(); p < 0 || p > math.MaxUint8 {
		return f, invalid("filter.protocol", "%d is no IANA protocol number; write 1 to 255", p)
	}
	f.Protocol = uint8(m.GetProtocol())
	for _, end := range []struct {
		name   string
		prefix *netip.Prefix
		text   string
		port   *uint16
		number uint32
	}{
		{"filter.inside", &f.Inside, m.GetInside(), &f.InsidePort, m.GetInsidePort()},
		{"filter.outside", &f.Outside, m.GetOutside(), &f.OutsidePort, m.GetOutsidePort()},
		{"filter.remote", &f.Remote, m.GetRemote(), &f.RemotePort, m.GetRemotePort()},
	} {
		var err error
		if *end.prefix, err = fromPrefix(end.name, end.text); err != nil {
			return f, err
		}
		if *end.port, err = fromPort(end.name+"_port", end.number); err != nil {
			return f, err
		}
	}
	return f, nil
}

// fromRemovalMode reads the toggle, of which a mask may name either form. If
// the mask names both, they must agree; otherwise a change of one would be
// lost.
func fromRemovalMode(m *pb.Settings, mask *fieldmaskpb.FieldMask) (inspect.RemovalMode, error) {
	either := inspect.RemovalOff
	if m.GetSubscriberSessionRemoval() {
		either = inspect.RemovalOn
	}
	given := m.GetRemovalMode()
	switch named := modesNamed(mask); {
	case !named.mode, named.toggle && given == pb.RemovalMode_REMOVAL_MODE_UNSPECIFIED:
		return either, nil
	case given == pb.RemovalMode_REMOVAL_MODE_UNSPECIFIED:
		return either, invalid("settings."+removalModePath, "is in the mask but has no value; write one of %s", valuesOf(removalModes))
	case named.toggle && m.GetSubscriberSessionRemoval() != (given == pb.RemovalMode_REMOVAL_MODE_ON):
		return either, invalid("settings."+removalModePath, "%v contradicts %s %t; name one of them in %s",
			given, inspect.SettingRemoval, m.GetSubscriberSessionRemoval(), maskField)
	}
	for mode, message := range removalModes {
		if message == given {
			return mode, nil
		}
	}
	return either, invalid("settings."+removalModePath, "%d is no mode; write one of %s", given, valuesOf(removalModes))
}

// fromSettings reads the settings named in the mask; the others stay zero.
func fromSettings(m *pb.Settings, names []string, mask *fieldmaskpb.FieldMask) (inspect.Settings, error) {
	var s inspect.Settings
	if slices.Contains(names, inspect.SettingRemoval) {
		var err error
		if s.Removal, err = fromRemovalMode(m, mask); err != nil {
			return s, err
		}
	}
	timeouts := map[string]*durationpb.Duration{
		inspect.SettingTCPEstablished: m.GetIdleTimeouts().GetTcpEstablished(),
		inspect.SettingTCPTransitory:  m.GetIdleTimeouts().GetTcpTransitory(),
		inspect.SettingUDP:            m.GetIdleTimeouts().GetUdp(),
		inspect.SettingICMP:           m.GetIdleTimeouts().GetIcmp(),

		inspect.SettingTCPPartialOpen:  m.GetIdleTimeouts().GetTcpPartialOpen(),
		inspect.SettingTCPPartialClose: m.GetIdleTimeouts().GetTcpPartialClose(),
	}
	for _, name := range names {
		to := inspect.TimeoutField(&s.IdleTimeouts, name)
		if to == nil || inspect.MayBeZero(name) && timeouts[name].AsDuration() == 0 { // absent, in a client of before
			continue
		}
		var err error
		if *to, err = fromTimeout("settings."+name, timeouts[name]); err != nil {
			return s, err
		}
	}
	return s, nil
}
