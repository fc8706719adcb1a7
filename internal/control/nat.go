package control

import (
	"context"
	"net/netip"
	"time"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// clockSkew is the largest lead of a client's clock for which a lookup's "now"
// is accepted.
const clockSkew = time.Minute

type natService struct {
	pb.UnimplementedNatServiceServer
	backend Nat
	now     func() time.Time
}

func (s *natService) ListBindings(ctx context.Context, req *pb.ListBindingsRequest) (*pb.ListBindingsResponse, error) {
	filter, err := fromBindingQuery(req)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parseBindingToken(req.GetPageToken(), filter)
	if err != nil {
		return nil, err
	}
	bindings, next, err := s.backend.Bindings(ctx, filter, after, size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListBindingsResponse{}
	if next != (inspect.BindingKey{}) {
		res.NextPageToken = bindingToken(filter, next)
	}
	for i := range bindings {
		res.Bindings = append(res.Bindings, toBinding(&bindings[i]))
	}
	return res, nil
}

func (s *natService) LookupOutside(ctx context.Context, req *pb.LookupOutsideRequest) (*pb.LookupOutsideResponse, error) {
	outside, err := fromAddr("outside_address", req.GetOutsideAddress())
	if err != nil {
		return nil, err
	}
	port, err := fromPort("port", req.GetPort())
	if err != nil {
		return nil, err
	}
	if port == 0 {
		return nil, invalid("port", "is required")
	}
	at, err := s.lookupTime(req)
	if err != nil {
		return nil, err
	}
	binding, err := s.backend.LookupOutside(ctx, outside, nat.Port(port), at)
	if err != nil {
		return nil, about("port", netip.AddrPortFrom(outside, port).String(), err)
	}
	return &pb.LookupOutsideResponse{Binding: toBinding(&binding)}, nil
}

// lookupTime returns the requested time, zero for now.
func (s *natService) lookupTime(req *pb.LookupOutsideRequest) (time.Time, error) {
	at, err := fromTimestamp("at", req.GetAt())
	if err != nil {
		return at, err
	}
	ahead := at.Sub(s.now())
	if ahead > clockSkew {
		return at, invalid("at", "is in the future")
	}
	if ahead > 0 {
		return time.Time{}, nil
	}
	return at, nil
}

func (s *natService) ListPools(ctx context.Context, req *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	pools, err := s.backend.Pools(ctx)
	if err != nil {
		return nil, err
	}
	res := &pb.ListPoolsResponse{}
	for i := range pools {
		if req.GetGroup() == "" || req.GetGroup() == pools[i].Group {
			res.Pools = append(res.Pools, toPool(&pools[i]))
		}
	}
	return res, nil
}

func (s *natService) ListDrops(ctx context.Context, _ *pb.ListDropsRequest) (*pb.ListDropsResponse, error) {
	counts, err := s.backend.Drops(ctx)
	if err != nil {
		return nil, err
	}
	res := &pb.ListDropsResponse{}
	for _, c := range counts {
		res.Drops = append(res.Drops, toDrop(c))
	}
	return res, nil
}
