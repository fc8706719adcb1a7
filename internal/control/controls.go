package control

import (
	"context"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// maxDriftsShown bounds the size of a ReconcileResponse.
const maxDriftsShown = 10_000

type controlService struct {
	pb.UnimplementedControlServiceServer
	backend  Controls
	previews Previews
}

func (s *controlService) GetSettings(ctx context.Context, _ *pb.GetSettingsRequest) (*pb.GetSettingsResponse, error) {
	settings, err := s.backend.Settings(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.GetSettingsResponse{Settings: toSettings(&settings)}, nil
}

func (s *controlService) UpdateSettings(ctx context.Context, req *pb.UpdateSettingsRequest) (*pb.UpdateSettingsResponse, error) {
	names, err := settingNames(req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	change, err := fromSettings(req.GetSettings(), names, req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		after, bindings, sessions, err := s.previews.PreviewSettings(ctx, change, names)
		if err != nil {
			return nil, err
		}
		return &pb.UpdateSettingsResponse{Settings: toSettings(&after), BindingsCut: count(bindings), SessionsEnded: count(sessions)}, nil
	}
	settings, err := s.backend.UpdateSettings(ctx, change, names)
	if err != nil {
		return nil, err
	}
	return &pb.UpdateSettingsResponse{Settings: toSettings(&settings)}, nil
}

func (s *controlService) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	st, err := s.backend.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.GetStatusResponse{Status: toStatusMessage(&st)}, nil
}

func (s *controlService) Reconcile(ctx context.Context, req *pb.ReconcileRequest) (*pb.ReconcileResponse, error) {
	drifts, err := s.backend.Reconcile(ctx, req.GetDryRun() || req.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	res := &pb.ReconcileResponse{Total: count(len(drifts))}
	for i := range min(len(drifts), maxDriftsShown) {
		res.Drifts = append(res.Drifts, toDrift(&drifts[i]))
	}
	return res, nil
}
