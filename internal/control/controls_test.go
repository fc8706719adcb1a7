package control_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	res, err := c.UpdateSettings(t.Context(), &pb.UpdateSettingsRequest{
		Settings:   &pb.Settings{IdleTimeouts: &pb.IdleTimeouts{Udp: durationpb.New(2 * time.Minute)}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"subscriber_session_removal", "idle_timeouts.udp"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := res.GetSettings()
	if s.GetSubscriberSessionRemoval() || s.GetIdleTimeouts().GetUdp().AsDuration() != 2*time.Minute ||
		s.GetIdleTimeouts().GetIcmp().AsDuration() != time.Minute {
		t.Errorf("settings are %v", s)
	}
	if s.GetRemovalMode() != pb.RemovalMode_REMOVAL_MODE_OFF {
		t.Errorf("the toggle is off, the mode %v", s.GetRemovalMode())
	}
	got, err := c.GetSettings(t.Context(), &pb.GetSettingsRequest{})
	if err != nil || got.GetSettings().String() != s.String() {
		t.Errorf("read back %v, %v", got, err)
	}
	_, err = c.UpdateSettings(t.Context(), &pb.UpdateSettingsRequest{Settings: s})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a mask: %v", err)
	}
}

func TestStatusAndReconcile(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Glance.NotReady = "waiting for Redis"
	for i := range 10_100 {
		b.Differs = append(b.Differs, inspect.Drift{Kind: inspect.DriftElementMissing, What: fmt.Sprint(i)})
	}
	c := serve(t, b)
	st, err := c.GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil || st.GetStatus().GetReady() || st.GetStatus().GetGroups()[0].GetPending() != 1 {
		t.Errorf("status %v, %v", st, err)
	}
	res, err := c.Reconcile(t.Context(), &pb.ReconcileRequest{DryRun: true})
	if err != nil || res.GetTotal() != 10_101 || len(res.GetDrifts()) != 10_000 || res.GetDrifts()[0].GetMended() {
		t.Errorf("reconcile: %d of %d, %v", len(res.GetDrifts()), res.GetTotal(), err)
	}
}
