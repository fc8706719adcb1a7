package control_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/nat"
)

func TestListBindings(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	template := b.Leases[0]
	b.Leases = nil
	for i := range 250 {
		l := template
		l.First = nat.Port(1024 + 8*((i*7)%250)) // not in order
		l.Last = l.First + 7
		b.Leases = append(b.Leases, l)
	}
	c := serve(t, b)
	var ports []uint32
	req := &pb.ListBindingsRequest{PageSize: 100, Outside: "198.51.100.0/28", State: pb.BindingState_BINDING_STATE_ACTIVE}
	for {
		page, err := c.ListBindings(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page.GetBindings() {
			ports = append(ports, l.GetFirstPort())
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	for i, p := range ports {
		if p != uint32(1024+8*i) {
			t.Fatalf("binding %d of %d begins at %d", i, len(ports), p)
		}
	}
	if len(ports) != 250 || b.Pages.Load() != 3 {
		t.Errorf("%d bindings in %d pages", len(ports), b.Pages.Load())
	}
	for name, req := range map[string]*pb.ListBindingsRequest{
		"state": {State: 99}, "inside": {Inside: "x"}, "outside": {Outside: "x"}, "token": {PageToken: "x"}, "size": {PageSize: -1},
	} {
		if _, err := c.ListBindings(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}

func TestLookupOutside(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(controltest.Now.Add(d)) }
	for name, one := range map[string]struct {
		req  *pb.LookupOutsideRequest
		want codes.Code
	}{
		"now":          {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 1100}, codes.OK},
		"held":         {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 2047}, codes.OK},
		"second block": {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 4607}, codes.OK},
		"between":      {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 4095}, codes.NotFound},
		"then":         {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 1100, At: at(-time.Hour)}, codes.OK},
		"clock ahead":  {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 1100, At: at(30 * time.Second)}, codes.OK},
		"too long ago": {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 1100, At: at(-48 * time.Hour)}, codes.NotFound},
		"nobody":       {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 60000}, codes.NotFound},
		"future":       {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 1100, At: at(time.Hour)}, codes.InvalidArgument},
		"no port":      {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1"}, codes.InvalidArgument},
		"large port":   {&pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 65536}, codes.InvalidArgument},
		"no address":   {&pb.LookupOutsideRequest{Port: 1100}, codes.InvalidArgument},
	} {
		res, err := c.LookupOutside(t.Context(), one.req)
		if status.Code(err) != one.want || (err == nil) != (res.GetBinding() != nil) {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
}

func TestListPools(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	res, err := c.ListPools(t.Context(), &pb.ListPoolsRequest{Group: "default"})
	if err != nil || len(res.GetPools()) != 1 || res.GetPools()[0].GetBlocksFree() != 2013 {
		t.Errorf("got %v, %v", res, err)
	}
	p := res.GetPools()[0]
	if p.GetPortsInUse().GetTcp() != 1 || p.GetPortsPeak().GetUdp() != 52 || p.GetSubscriberPorts().GetSubscribers() != 1 || p.GetSubscriberPorts().GetP99() != 1 {
		t.Errorf("port use: %v", p)
	}
	if res, err := c.ListPools(t.Context(), &pb.ListPoolsRequest{Group: "other"}); err != nil || len(res.GetPools()) != 0 {
		t.Errorf("other group: %v, %v", res, err)
	}
}

func TestListDrops(t *testing.T) {
	t.Parallel()
	b := &controltest.Backend{Dropped: []nat.DropCount{
		{Drop: nat.Drop{Reason: nat.DropNoGate, Direction: nat.DropOut}, Packets: 2, Bytes: 120},
		{Drop: nat.Drop{Reason: nat.DropBarrier, Direction: nat.DropOut}, Packets: 3},
	}}
	c := serve(t, b)
	res, err := c.ListDrops(t.Context(), &pb.ListDropsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := []*pb.Drop{
		{Reason: "no_gate", Direction: "out", Packets: 2, Bytes: 120, BytesCounted: true, Meaning: b.Dropped[0].Meaning()},
		{Reason: "barrier", Direction: "out", Packets: 3, Meaning: b.Dropped[1].Meaning()},
	}
	if !slices.EqualFunc(res.GetDrops(), want, func(a, b *pb.Drop) bool { return proto.Equal(a, b) }) {
		t.Errorf("drops are %v, want %v", res.GetDrops(), want)
	}
}

func TestAdviseBlockSize_NAT39(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	target := func(share float64) *float64 { return &share }
	for name, one := range map[string]struct {
		req  *pb.AdviseBlockSizeRequest
		want codes.Code
		used float64 // target
	}{
		"default":  {&pb.AdviseBlockSizeRequest{}, codes.OK, 0.001},
		"group":    {&pb.AdviseBlockSizeRequest{Group: "default", OverflowTarget: target(0.02)}, codes.OK, 0.02},
		"nobody":   {&pb.AdviseBlockSizeRequest{OverflowTarget: target(0)}, codes.OK, 0},
		"unknown":  {&pb.AdviseBlockSizeRequest{Group: "other"}, codes.NotFound, 0},
		"negative": {&pb.AdviseBlockSizeRequest{OverflowTarget: target(-0.1)}, codes.InvalidArgument, 0},
		"above":    {&pb.AdviseBlockSizeRequest{OverflowTarget: target(1.1)}, codes.InvalidArgument, 0},
		"no share": {&pb.AdviseBlockSizeRequest{OverflowTarget: target(math.NaN())}, codes.InvalidArgument, 0},
	} {
		res, err := c.AdviseBlockSize(t.Context(), one.req)
		if status.Code(err) != one.want {
			t.Errorf("%s: %v, %v", name, res, err)
		}
		if err == nil && (len(res.GetGroups()) != 1 || res.GetGroups()[0].GetOverflowTarget() != one.used || len(res.GetGroups()[0].GetSizes()) != 10) {
			t.Errorf("%s: %v", name, res)
		}
	}
}
