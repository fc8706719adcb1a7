package control

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

type mappingService struct {
	pb.UnimplementedMappingServiceServer
	backend  Mappings
	previews Previews
}

func (s *mappingService) CreateMapping(ctx context.Context, req *pb.CreateMappingRequest) (*pb.CreateMappingResponse, error) {
	m, lifetime, err := fromMapping(req)
	if err != nil {
		return nil, err
	}
	create := s.backend.CreateMapping
	if req.GetValidateOnly() {
		create = s.previews.PreviewMapping
	}
	made, err := create(ctx, m, lifetime)
	if err != nil {
		return nil, about("mapping", m.Owner.String(), err)
	}
	return &pb.CreateMappingResponse{Mapping: toMapping(&made)}, nil
}

func (s *mappingService) ListMappings(ctx context.Context, req *pb.ListMappingsRequest) (*pb.ListMappingsResponse, error) {
	filter, err := fromMappingQuery(req)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parseMappingToken(req.GetPageToken(), filter)
	if err != nil {
		return nil, err
	}
	list, next, err := s.backend.Mappings(ctx, filter, after, size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListMappingsResponse{}
	if next != (inspect.MappingKey{}) {
		res.NextPageToken = mappingToken(filter, next)
	}
	for i := range list {
		res.Mappings = append(res.Mappings, toMapping(&list[i]))
	}
	return res, nil
}

func (s *mappingService) DeleteMapping(ctx context.Context, req *pb.DeleteMappingRequest) (*pb.DeleteMappingResponse, error) {
	e, err := fromEndpoint(req.GetProtocol(), req.GetOutsideAddress(), req.GetOutsidePort())
	if err != nil {
		return nil, err
	}
	end := s.backend.DeleteMapping
	if req.GetValidateOnly() {
		end = s.previews.PreviewMappingEnd
	}
	m, sessions, err := end(ctx, req.GetGroup(), e)
	if err != nil {
		return nil, about("mapping", e.String(), err)
	}
	return &pb.DeleteMappingResponse{Mapping: toMapping(&m), SessionsEnded: count(sessions)}, nil
}

// fromMapping reads the mapping to make, and its lifetime.
func fromMapping(req *pb.CreateMappingRequest) (m nat.Mapping, lifetime time.Duration, err error) {
	m = nat.Mapping{Group: req.GetGroup(), Kind: nat.MappingStatic}
	if m.Outside.Protocol, err = fromMappedProtocol(req.GetProtocol()); err != nil {
		return m, 0, err
	}
	if m.Owner, err = fromOwner(req); err != nil {
		return m, 0, err
	}
	port, err := fromMappedPort("inside_port", req.GetInsidePort())
	if err != nil {
		return m, 0, err
	}
	m.InsidePort = nat.Port(port)
	if req.GetOutsideAddress() != "" || req.GetOutsidePort() != 0 {
		if m.Outside, err = fromEndpoint(req.GetProtocol(), req.GetOutsideAddress(), req.GetOutsidePort()); err != nil {
			return m, 0, err
		}
	}
	lifetime, err = fromLifetime("lifetime", req.GetLifetime())
	return m, lifetime, err
}

func fromOwner(req *pb.CreateMappingRequest) (o nat.Owner, err error) {
	if (req.GetUserName() == "") == (req.GetInsideAddress() == "") {
		return o, invalid("user_name", "or inside_address is required, and not both; write whose the mapping is")
	}
	if req.GetInsideAddress() != "" {
		o.Inside, err = fromAddr("inside_address", req.GetInsideAddress())
		return o, err
	}
	o.UserName, err = fromText("user_name", req.GetUserName())
	return o, err
}

// longestLifetime is ten years: a longer one is a mistake of units.
const longestLifetime = 10 * 365 * 24 * time.Hour

// fromLifetime reads a lifetime; absent is none.
func fromLifetime(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
		return 0, invalid(field, "must not be negative; leave it out for no end")
	}
	if d.AsDuration() > longestLifetime {
		return 0, invalid(field, "is longer than %v; leave it out for none", longestLifetime)
	}
	return d.AsDuration(), nil
}

func fromMappedProtocol(p pb.Protocol) (uint8, error) {
	switch p {
	case pb.Protocol_PROTOCOL_TCP, pb.Protocol_PROTOCOL_UDP:
		return uint8(p), nil
	case pb.Protocol_PROTOCOL_UNSPECIFIED:
		return 0, invalid("protocol", "is required; write PROTOCOL_TCP or PROTOCOL_UDP")
	}
	return 0, invalid("protocol", "must be PROTOCOL_TCP or PROTOCOL_UDP")
}

func fromMappedPort(field string, number uint32) (uint16, error) {
	port, err := fromPort(field, number)
	if err == nil && port == 0 {
		err = invalid(field, "is required; write 1 to 65535")
	}
	return port, err
}

// fromEndpoint reads the public endpoint of a mapping.
func fromEndpoint(p pb.Protocol, address string, number uint32) (e nat.Endpoint, err error) {
	if e.Protocol, err = fromMappedProtocol(p); err != nil {
		return e, err
	}
	a, err := fromAddr("outside_address", address)
	if err != nil {
		return e, err
	}
	port, err := fromMappedPort("outside_port", number)
	e.AddrPort = netip.AddrPortFrom(a, port)
	return e, err
}

func fromMappingQuery(q *pb.ListMappingsRequest) (f inspect.MappingFilter, err error) {
	f.Group = q.GetGroup()
	if f.UserName, err = fromText("user_name", q.GetUserName()); err != nil {
		return f, err
	}
	if f.Inside, err = fromPrefix("inside", q.GetInside()); err != nil {
		return f, err
	}
	if f.Outside, err = fromPrefix("outside", q.GetOutside()); err != nil {
		return f, err
	}
	for kind, p := range mappingKinds {
		if p == q.GetKind() {
			f.Kind = kind
		}
	}
	if f.Kind == 0 && q.GetKind() != pb.MappingKind_MAPPING_KIND_UNSPECIFIED {
		return f, invalid("kind", "%v is not known; write one of %s", q.GetKind(), valuesOf(mappingKinds))
	}
	return f, nil
}

// mappingsAt answers a lookup of a port that no block has.
func (s *natService) mappingsAt(ctx context.Context, outside netip.AddrPort, at time.Time) (*pb.LookupOutsideResponse, error) {
	list, err := s.mappings.MappingsAt(ctx, outside, at)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	res := &pb.LookupOutsideResponse{}
	for i := range list {
		res.Mappings = append(res.Mappings, toMapping(&list[i]))
	}
	return res, nil
}
