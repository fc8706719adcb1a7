package control_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

func TestListEndings(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	var got []string
	for req := (&pb.ListEndingsRequest{PageSize: 2}); ; {
		page, err := c.ListEndings(t.Context(), req)
		if err != nil || page.GetCompleteSinceTime() == nil {
			t.Fatal(page, err)
		}
		for _, e := range page.GetEndings() {
			got = append(got, fmt.Sprint(e.GetUserName(), " ", e.GetReason(), " ", e.GetTerminateCause(), " ", e.GetReceipt().GetSessionsDeleted(), " ", e.GetResumeTime() != nil))
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	want := []string{"carol REASON_STOP 2 14 false", "dave REASON_STOP 2 0 true", "alice REASON_NAS_RESTART 0 87 false"}
	if !slices.Equal(got, want) {
		t.Errorf("endings %q, want %q", got, want)
	}
	for name, c2 := range map[string]struct {
		req  *pb.ListEndingsRequest
		want int
	}{
		"of a user":    {&pb.ListEndingsRequest{UserName: "carol"}, 1},
		"at":           {&pb.ListEndingsRequest{Inside: "100.64.0.0/29"}, 1},
		"for":          {&pb.ListEndingsRequest{Reason: pb.Reason_REASON_STOP}, 2},
		"since":        {&pb.ListEndingsRequest{StartTime: timestamppb.New(controltest.Now.Add(-time.Minute))}, 1},
		"until":        {&pb.ListEndingsRequest{EndTime: timestamppb.New(controltest.Now.Add(-time.Minute))}, 2},
		"outside":      {&pb.ListEndingsRequest{Outside: "198.51.100.2"}, 0},
		"of no NAS":    {&pb.ListEndingsRequest{Nas: "x"}, 0},
		"of one group": {&pb.ListEndingsRequest{Group: "default"}, 3},
	} {
		if page, err := c.ListEndings(t.Context(), c2.req); err != nil || len(page.GetEndings()) != c2.want {
			t.Errorf("%s: %d, %v; want %d", name, len(page.GetEndings()), err, c2.want)
		}
	}
}

func TestExplainSubscriber(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	for name, req := range map[string]*pb.ExplainSubscriberRequest{"by user": {UserName: "alice"}, "by address": {InsideAddress: "100.64.0.7"}} {
		res, err := c.ExplainSubscriber(t.Context(), req)
		if err != nil || len(res.GetExplanations()) != 1 {
			t.Fatal(name, res, err)
		}
		e := res.GetExplanations()[0]
		if e.GetSubscriber().GetUserName() != "alice" || e.GetNewSession().GetDropReason() != "over_limit" || e.GetNewSession().GetPasses() || e.GetLimits()[1].Used != nil ||
			e.GetLimits()[2].GetRefuseTime() == nil || e.GetSessions().GetTcp() != 1 || e.GetNas().GetRestartEndings().GetSubscribers() != 212 || len(e.GetAdvice()) == 0 || len(e.GetDrops()) == 0 || len(e.GetMappings()) != 1 {
			t.Errorf("%s: %v", name, e)
		}
	}
	for want, req := range map[codes.Code]*pb.ExplainSubscriberRequest{
		codes.NotFound: {UserName: "nobody"}, codes.InvalidArgument: {UserName: "alice", InsideAddress: "100.64.0.7"},
	} {
		if _, err := c.ExplainSubscriber(t.Context(), req); status.Code(err) != want {
			t.Errorf("%v: %v, want %v", req, err, want)
		}
	}
}

func TestListTopSubscribers(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	for _, by := range pb.TopBy_value {
		res, err := c.ListTopSubscribers(t.Context(), &pb.ListTopSubscribersRequest{By: pb.TopBy(by), PageSize: 1, Window: durationpb.New(time.Second)})
		if err != nil || len(res.GetSubscribers()) != 1 || res.GetSubscribers()[0].GetUserName() != "alice" || res.GetSubscribers()[0].GetBlocks() != 1 || res.GetSubscribers()[0].GetOctets() == 0 {
			t.Errorf("by %d: %v, %v", by, res, err)
		}
	}
}

// TestOrders: each list takes the orders that it names when it is asked for another, and pages by
// them; a token is good for its order alone.
func TestOrders(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	lists := map[string]func(order, token string) (string, error){
		"subscribers": func(order, token string) (string, error) {
			res, err := c.ListSubscribers(t.Context(), &pb.ListSubscribersRequest{OrderBy: order, PageToken: token, PageSize: 1})
			return res.GetNextPageToken(), err
		},
		"bindings": func(order, token string) (string, error) {
			res, err := c.ListBindings(t.Context(), &pb.ListBindingsRequest{OrderBy: order, PageToken: token, PageSize: 1})
			return res.GetNextPageToken(), err
		},
		"nases": func(order, token string) (string, error) {
			res, err := c.ListNases(t.Context(), &pb.ListNasesRequest{OrderBy: order, PageToken: token, PageSize: 1})
			return res.GetNextPageToken(), err
		},
	}
	for name, list := range lists {
		_, err := list("octets desc", "")
		_, named, found := strings.Cut(status.Convert(err).Message(), "one of: ")
		if status.Code(err) != codes.InvalidArgument || !found {
			t.Fatalf("%s: %v", name, err)
		}
		var first string
		for i, order := range strings.Split(named, "; ") {
			token, err := list(" "+order+" ", "")
			if err == nil && token != "" {
				_, err = list(order, token)
			}
			if err != nil {
				t.Errorf("%s by %s: %v", name, order, err)
			}
			if i == 0 {
				first = token
			} else if _, err := list(order, first); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s by %s takes the token of another order: %v", name, order, err)
			}
		}
	}
	res, err := c.ListSubscribers(t.Context(), &pb.ListSubscribersRequest{})
	if err != nil || res.TotalSize == nil || res.GetTotalSize() != 2 {
		t.Errorf("the total is %v, %v", res.TotalSize, err)
	}
	res, err = c.ListSubscribers(t.Context(), &pb.ListSubscribersRequest{UserNamePrefix: "b"})
	if err != nil || res.TotalSize != nil || len(res.GetSubscribers()) != 1 {
		t.Errorf("with a filter: %v, %v", res, err)
	}
}

// TestFilters: each filter of subscribers, in lists and in deletions.
func TestFilters(t *testing.T) {
	t.Parallel()
	type filter struct {
		prefix, station, session, outside, remote string
		port, remotePort                          uint32
		state                                     pb.SubscriberState
	}
	for name, c := range map[string]struct {
		filter
		want []string
	}{
		"prefix":          {filter{prefix: "al"}, []string{"alice"}},
		"no such prefix":  {filter{prefix: "x"}, nil},
		"station":         {filter{station: "0200.0000.0007"}, []string{"alice", "bob"}},
		"another station": {filter{station: "0200.0000.0008"}, nil},
		"session":         {filter{session: "0A03"}, []string{"bob"}},
		"outside":         {filter{outside: "198.51.100.0/28"}, []string{"alice"}},
		"port":            {filter{outside: "198.51.100.1", port: 1100}, []string{"alice"}},
		"another port":    {filter{outside: "198.51.100.1", port: 1600}, nil},
		"remote":          {filter{remote: "203.0.113.0/24"}, []string{"alice"}},
		"remote port":     {filter{remotePort: 443}, []string{"alice"}},
		"both":            {filter{remote: "203.0.113.5", remotePort: 443}, []string{"alice"}},
		"another remote":  {filter{remote: "198.51.100.77"}, nil},
		"waiting":         {filter{state: pb.SubscriberState_SUBSCRIBER_STATE_PENDING}, []string{"bob"}},
		"active":          {filter{state: pb.SubscriberState_SUBSCRIBER_STATE_ACTIVE}, []string{"alice"}},
		"ending":          {filter{state: pb.SubscriberState_SUBSCRIBER_STATE_ENDING}, nil},
		"held":            {filter{state: pb.SubscriberState_SUBSCRIBER_STATE_REMOVAL_HELD}, nil},
		"unconfirmed":     {filter{state: pb.SubscriberState_SUBSCRIBER_STATE_UNCONFIRMED}, nil},
	} {
		api := serve(t, controltest.Scene())
		res, err := api.ListSubscribers(t.Context(), &pb.ListSubscribersRequest{
			UserNamePrefix: c.prefix, CallingStationId: c.station, AcctSessionId: c.session, Outside: c.outside, OutsidePort: c.port, State: c.state,
			Remote: c.remote, RemotePort: c.remotePort,
		})
		if got := usersOf(res.GetSubscribers()); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
		only, err := api.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{
			UserNamePrefix: c.prefix, CallingStationId: c.station, AcctSessionId: c.session, Outside: c.outside, OutsidePort: c.port, State: c.state,
			Remote: c.remote, RemotePort: c.remotePort, ValidateOnly: true,
		})
		if err != nil || int(only.GetDeleted()) != len(c.want) {
			t.Errorf("%s: would delete %v, %v; want %v", name, only, err, c.want)
		}
		gone, err := api.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{
			UserNamePrefix: c.prefix, CallingStationId: c.station, AcctSessionId: c.session, Outside: c.outside, OutsidePort: c.port, State: c.state,
			Remote: c.remote, RemotePort: c.remotePort,
		})
		if got := usersOf(gone.GetSubscribers()); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: deleted %v, %v; want %v", name, got, err, c.want)
		}
	}
}

// TestBadRemotes: a remote that is none names its field.
func TestBadRemotes(t *testing.T) {
	t.Parallel()
	api := serve(t, controltest.Scene())
	for _, req := range []*pb.ListSubscribersRequest{{Remote: "host.example"}, {RemotePort: 65536}, {Remote: "203.0.113.5:443"}} {
		if _, err := api.ListSubscribers(t.Context(), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "remote") {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func usersOf(list []*pb.Subscriber) (names []string) {
	for _, s := range list {
		names = append(names, s.GetUserName())
	}
	return names
}

// TestEtag: a change with the etag of a record that has changed is refused, and changes nothing.
func TestEtag(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Online[0].Version = "5-1"
	c := serve(t, b)
	seen, err := c.GetSubscriber(t.Context(), &pb.GetSubscriberRequest{InsideAddress: "100.64.0.7"})
	if err != nil || seen.GetSubscriber().GetEtag() != "5-1" {
		t.Fatal(seen, err)
	}
	for etag, want := range map[string]codes.Code{"4-0": codes.Aborted, "5-1": codes.OK} {
		_, err := c.PutSubscriber(t.Context(), &pb.PutSubscriberRequest{Subscriber: &pb.Subscriber{InsideAddress: "100.64.0.7", UserName: "alice", Etag: etag}})
		if status.Code(err) != want {
			t.Errorf("put with %s: %v, want %v", etag, err, want)
		}
		if b.Online[0].Version = "5-1"; want != codes.OK && reasonOfError(err) != "CONFLICT" {
			t.Errorf("put with %s: %v", etag, err)
		}
	}
	for _, step := range []struct {
		etag, inside string
		want         codes.Code
	}{
		{"4-0", "100.64.0.7", codes.Aborted}, {"5-1", "100.64.0.0/24", codes.InvalidArgument},
		{"5-1", "", codes.InvalidArgument}, {"5-1", "100.64.0.7", codes.OK}, {"5-1", "100.64.0.7", codes.NotFound},
	} {
		res, err := c.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{Inside: step.inside, Etag: step.etag})
		if status.Code(err) != step.want || step.want == codes.OK && (res.GetDeleted() != 1 || len(res.GetSubscribers()) != 1) {
			t.Errorf("delete of %s with %s: %v, %v; want %v", step.inside, step.etag, res, err, step.want)
		}
	}
}

func reasonOfError(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// odd are values that hardly any field takes, by kind.
func odd(f protoreflect.FieldDescriptor) (values []protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.StringKind:
		for _, text := range []string{"x", "-1", "2001:db8::1", "10.0.0.1/33", strings.Repeat("u", 300)} {
			values = append(values, protoreflect.ValueOfString(text))
		}
	case protoreflect.Uint32Kind:
		values = []protoreflect.Value{protoreflect.ValueOfUint32(70_000), protoreflect.ValueOfUint32(math.MaxUint32)}
	case protoreflect.Int32Kind:
		values = []protoreflect.Value{protoreflect.ValueOfInt32(-1)}
	case protoreflect.EnumKind:
		values = []protoreflect.Value{protoreflect.ValueOfEnum(99), protoreflect.ValueOfEnum(-1)}
	case protoreflect.DoubleKind:
		values = []protoreflect.Value{protoreflect.ValueOfFloat64(math.NaN()), protoreflect.ValueOfFloat64(-1)}
	}
	return values
}

// requests returns requests of a method, each with one field that has an odd value, and an empty one.
func requests(d protoreflect.MessageDescriptor) []proto.Message {
	list := []proto.Message{dynamicpb.NewMessage(d)}
	var vary func(path []protoreflect.FieldDescriptor, d protoreflect.MessageDescriptor)
	vary = func(path []protoreflect.FieldDescriptor, d protoreflect.MessageDescriptor) {
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			at := append(slices.Clone(path), f)
			if f.Kind() == protoreflect.MessageKind && !f.IsMap() && !f.IsList() && len(at) < 4 {
				vary(at, f.Message())
			}
			for _, v := range odd(f) {
				m := dynamicpb.NewMessage(list[0].ProtoReflect().Descriptor())
				var in protoreflect.Message = m
				for _, step := range at[:len(at)-1] {
					in = in.Mutable(step).Message()
				}
				if f.IsList() {
					in.Mutable(f).List().Append(v)
				} else {
					in.Set(f, v)
				}
				list = append(list, m)
			}
		}
	}
	vary(nil, d)
	return list
}

// TestErrorsSayWhatToWrite: whatever is wrong in a request, the error names the field as the request
// has it, and says what to write instead.
func TestErrorsSayWhatToWrite(t *testing.T) {
	t.Parallel()
	conn := dial(t, controltest.Serve(t, controltest.Scene(), nil).Address)
	seen := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("sessiond.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				if method.Name() == "WatchSubscribers" {
					continue // goes on for ever where nothing is wrong
				}
				for _, req := range requests(method.Input()) {
					if err := call(t, conn, service, method, req); status.Code(err) == codes.InvalidArgument {
						seen++
						checkInvalid(t, fmt.Sprint(method.Name(), " ", req), method.Input(), err)
					}
				}
			}
		}
		return true
	})
	if seen < 100 {
		t.Errorf("%d requests were refused", seen)
	}
}

func call(t *testing.T, conn *grpc.ClientConn, service protoreflect.ServiceDescriptor, method protoreflect.MethodDescriptor, req proto.Message) error {
	t.Helper()
	name, res := fmt.Sprintf("/%s/%s", service.FullName(), method.Name()), dynamicpb.NewMessage(method.Output())
	if !method.IsStreamingServer() {
		return conn.Invoke(t.Context(), name, req, res)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, name)
	if err == nil {
		err = stream.SendMsg(req)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		err = stream.RecvMsg(res)
	}
	return err
}

// instructions are the words that tell what to write.
var instructions = []string{"write ", "must be ", "must not be ", "give ", "give it ", "leave ", "name ", "known are ", "begin without", "stands for", "can be ", "is required: ", "means all", "calling_station_id and expires_at can"}

func checkInvalid(t *testing.T, what string, d protoreflect.MessageDescriptor, err error) {
	t.Helper()
	var violations []*errdetails.BadRequest_FieldViolation
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			violations = append(violations, bad.GetFieldViolations()...)
		}
	}
	if len(violations) == 0 && reasonOfError(err) != "INVALID_FIELD" {
		return // about the request as a whole, with a reason of its own
	}
	if len(violations) == 0 {
		t.Errorf("%s: %v names no field", what, err)
	}
	for _, v := range violations {
		at := d
		for _, name := range strings.Split(v.GetField(), ".") {
			f := at.Fields().ByName(protoreflect.Name(name))
			if f == nil {
				t.Errorf("%s: %q is no field of %s", what, v.GetField(), d.Name())
				break
			}
			at = f.Message()
		}
		if !slices.ContainsFunc(instructions, func(word string) bool { return strings.Contains(v.GetDescription(), word) }) {
			t.Errorf("%s: %s %q does not say what to write", what, v.GetField(), v.GetDescription())
		}
	}
}
