package control

import (
	"context"
	"errors"
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
	backend  Nat
	mappings Mappings
	previews Previews
	past     func() (History, error)
	now      func() time.Time
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
	if _, err := fromOrder(req.GetOrderBy(), orderInside); err != nil {
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
	if n, counted := s.backend.BindingTotal(ctx, filter); counted {
		res.TotalSize = total(n)
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
	at, err := s.lookupTime(req)
	if err != nil {
		return nil, err
	}
	if port == 0 {
		return s.candidates(req, outside, at)
	}
	res := &pb.LookupOutsideResponse{}
	binding, err := s.backend.LookupOutside(ctx, outside, nat.Port(port), at)
	switch {
	case err == nil:
		res.Binding = toBinding(&binding)
	case errors.Is(err, inspect.ErrNotFound) || errors.Is(err, inspect.ErrNotCovered):
		if mapped, mapErr := s.mappingsAt(ctx, netip.AddrPortFrom(outside, port), at); mapped != nil || mapErr != nil {
			return mapped, mapErr
		}
	}
	if !at.IsZero() {
		var inForce netip.Addr
		if err == nil && binding.State != nat.Held {
			inForce = binding.Inside
		}
		past, pastErr := s.pastAnswer(req, outside, nat.Port(port), at, inForce)
		switch {
		case pastErr != nil && err != nil:
			return nil, pastErr
		case past != nil:
			res.Answer = past
			return res, nil
		}
	}
	if err != nil {
		return nil, about("port", netip.AddrPortFrom(outside, port).String(), err)
	}
	return res, nil
}

// lookupTime returns the requested time, zero for now.
func (s *natService) lookupTime(req *pb.LookupOutsideRequest) (time.Time, error) {
	at, err := fromTimestamp("at", req.GetAt())
	if err != nil {
		return at, err
	}
	ahead := at.Sub(s.now())
	if ahead > clockSkew {
		return at, invalid("at", "is in the future; write a time that has passed, or leave it out for now")
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
	uses, err := s.backend.PortUse(ctx)
	if err != nil {
		return nil, err
	}
	res := &pb.ListPoolsResponse{}
	for i := range pools {
		if req.GetGroup() == "" || req.GetGroup() == pools[i].Group {
			pool := toPool(&pools[i])
			addPorts(pool, portsOf(uses, &pools[i]))
			res.Pools = append(res.Pools, pool)
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

func (s *natService) AddPool(ctx context.Context, req *pb.AddPoolRequest) (*pb.AddPoolResponse, error) {
	outside, err := fromPool(req.GetOutsidePrefix())
	if err != nil {
		return nil, err
	}
	add := s.backend.AddPool
	if req.GetValidateOnly() {
		add = s.previews.PreviewAddPool
	}
	pools, err := add(ctx, req.GetGroup(), outside)
	if err != nil {
		return nil, about("pool", outside.String(), err)
	}
	return &pb.AddPoolResponse{Pools: toPools(pools)}, nil
}

func (s *natService) DrainPool(ctx context.Context, req *pb.DrainPoolRequest) (*pb.DrainPoolResponse, error) {
	outside, err := fromPool(req.GetOutsidePrefix())
	if err != nil {
		return nil, err
	}
	drain := s.backend.DrainPool
	if req.GetValidateOnly() {
		drain = s.previews.PreviewDrainPool
	}
	pools, err := drain(ctx, req.GetGroup(), outside)
	if err != nil {
		return nil, about("pool", outside.String(), err)
	}
	return &pb.DrainPoolResponse{Pools: toPools(pools)}, nil
}

func (s *natService) RemovePool(ctx context.Context, req *pb.RemovePoolRequest) (*pb.RemovePoolResponse, error) {
	outside, err := fromPool(req.GetOutsidePrefix())
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		pools, cut, sessions, err := s.previews.PreviewRemovePool(ctx, req.GetGroup(), outside, req.GetAllowDisruption())
		if err != nil {
			return nil, about("pool", outside.String(), err)
		}
		return &pb.RemovePoolResponse{Pools: toPools(pools), BindingsCut: count(cut), SessionsEnded: count(sessions)}, nil
	}
	pools, cut, err := s.backend.RemovePool(ctx, req.GetGroup(), outside, req.GetAllowDisruption())
	if err != nil {
		return nil, about("pool", outside.String(), err)
	}
	return &pb.RemovePoolResponse{Pools: toPools(pools), BindingsCut: count(cut)}, nil
}

// fromPool reads the prefix of a change of pools. It must be written exactly: a change of
// more addresses than were meant is worse than a refusal.
func fromPool(text string) (netip.Prefix, error) {
	const field = "outside_prefix"
	p, err := fromPrefix(field, text)
	if err != nil {
		return p, err
	}
	switch a := p.Addr(); {
	case !p.IsValid():
		return p, invalid(field, "is required; write a prefix such as 198.51.100.16/28")
	case a.IsMulticast(), a.IsLoopback(), a.IsUnspecified(), a.IsLinkLocalUnicast():
		return p, invalid(field, "%v is not of addresses that hosts can have here; write a public prefix", p)
	}
	if exact, err := netip.ParsePrefix(text); err == nil && exact != p {
		return p, invalid(field, "%q has host bits; write %v", text, p)
	}
	return p, nil
}

func toPools(pools []inspect.Pool) []*pb.Pool {
	list := make([]*pb.Pool, len(pools))
	for i := range pools {
		list[i] = toPool(&pools[i])
	}
	return list
}

// portsOf returns the port use of a pool.
func portsOf(uses []inspect.PortUse, pool *inspect.Pool) *inspect.PoolPorts {
	for i := range uses {
		for j := range uses[i].Pools {
			if p := &uses[i].Pools[j]; uses[i].Group == pool.Group && p.Outside == pool.Outside {
				return p
			}
		}
	}
	return &inspect.PoolPorts{}
}

// defaultOverflow is the default share of bindings that may overflow.
const defaultOverflow = 0.001

func (s *natService) AdviseBlockSize(ctx context.Context, req *pb.AdviseBlockSizeRequest) (*pb.AdviseBlockSizeResponse, error) {
	target := defaultOverflow
	if req != nil && req.OverflowTarget != nil {
		target = req.GetOverflowTarget()
	}
	if !(target >= 0 && target <= 1) {
		return nil, invalid("overflow_target", "must be 0 to 1")
	}
	list, err := s.backend.AdviseBlockSize(ctx, req.GetGroup(), target)
	if err != nil {
		return nil, about("group", req.GetGroup(), err)
	}
	res := &pb.AdviseBlockSizeResponse{}
	for i := range list {
		res.Groups = append(res.Groups, toAdvice(&list[i]))
	}
	return res, nil
}
