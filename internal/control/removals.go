package control

import (
	"context"
	"fmt"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
)

type removalService struct {
	pb.UnimplementedRemovalServiceServer
	backend  Removals
	previews Previews
}

func (s *removalService) ListRemovals(ctx context.Context, req *pb.ListRemovalsRequest) (*pb.ListRemovalsResponse, error) {
	filter, err := fromRemovalFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	if filter.Kind, err = fromEnum("kind", req.GetKind(), removalKinds); err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parseRemovalToken(req.GetPageToken(), filter)
	if err != nil {
		return nil, err
	}
	removals, next, err := s.backend.Removals(ctx, filter, after, size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListRemovalsResponse{}
	if next != (inspect.RemovalKey{}) {
		res.NextPageToken = removalToken(filter, next)
	}
	for i := range removals {
		res.Removals = append(res.Removals, toRemoval(&removals[i]))
	}
	return res, nil
}

func (s *removalService) ConfirmRemovals(ctx context.Context, req *pb.ConfirmRemovalsRequest) (*pb.ConfirmRemovalsResponse, error) {
	filter, err := decisionFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		n, sessions, etag, err := s.previews.PreviewRemovals(ctx, filter)
		if err != nil {
			return nil, err
		}
		return &pb.ConfirmRemovalsResponse{Confirmed: count(n), SessionsEnded: count(sessions), Etag: etag}, nil
	}
	n, err := s.backend.ConfirmRemovals(ctx, filter, req.GetEtag())
	if err != nil {
		return nil, fmt.Errorf("after %d removals: %w", n, err)
	}
	return &pb.ConfirmRemovalsResponse{Confirmed: count(n)}, nil
}

func (s *removalService) RefuseRemovals(ctx context.Context, req *pb.RefuseRemovalsRequest) (*pb.RefuseRemovalsResponse, error) {
	filter, err := decisionFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		n, _, etag, err := s.previews.PreviewRemovals(ctx, filter)
		if err != nil {
			return nil, err
		}
		return &pb.RefuseRemovalsResponse{Refused: count(n), Etag: etag}, nil
	}
	n, err := s.backend.RefuseRemovals(ctx, filter, req.GetEtag())
	if err != nil {
		return nil, fmt.Errorf("after %d removals: %w", n, err)
	}
	return &pb.RefuseRemovalsResponse{Refused: count(n)}, nil
}

// decisionFilter reads the filter of a decision. It refuses an empty one, so
// that no decision covers all removals by mistake.
func decisionFilter(m *pb.RemovalFilter) (inspect.RemovalFilter, error) {
	f, err := fromRemovalFilter(m)
	if err == nil && f == (inspect.RemovalFilter{}) {
		return f, invalid("filter", `is required: group, nas, inside or reason; inside "0.0.0.0/0" means all`)
	}
	return f, err
}
