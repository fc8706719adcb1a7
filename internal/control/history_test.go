package control_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/inspect"
)

// ago is a time before that of the scene.
func ago(d time.Duration) time.Time { return controltest.Now.Add(-d) }

const day = 24 * time.Hour

func servePast(t *testing.T) (pb.NatServiceClient, pb.HistoryServiceClient, *controltest.Past) {
	t.Helper()
	h := controltest.History(t)
	s := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.History = func() (control.History, error) { return h, nil } })
	conn := dial(t, s.Address)
	return pb.NewNatServiceClient(conn), pb.NewHistoryServiceClient(conn), h
}

// all takes all messages of a stream.
func all[M any](receive func() (M, error)) (list []M, err error) {
	for {
		m, err := receive()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, m)
	}
}

// TestPastLookups_LOG06: a question with a time is answered by the history, and by the present bindings
// where these know more.
func TestPastLookups_LOG06(t *testing.T) {
	t.Parallel()
	c, _, h := servePast(t)
	const edge = time.Microsecond
	for _, q := range []struct {
		outside string
		port    uint32
		at      time.Time
		want    string
	}{
		{"198.51.100.9", 5000, ago(3 * day), "HELD erin"},
		{"198.51.100.9", 5063, ago(3*day - time.Hour + edge), "HELD erin"},
		{"198.51.100.9", 5063, ago(3*day - time.Hour), "NOBODY erin"},
		{"198.51.100.9", 5000, ago(3*day + edge), "NOBODY "},
		{"198.51.100.9", 5000, ago(2 * day), "HELD frank"},
		{"198.51.100.9", 5064, ago(day - time.Minute), "HELD erin"}, // covers the gap
		{"198.51.100.9", 7000, ago(day - time.Minute), "UNKNOWN "},
		{"198.51.100.9", 5000, ago(6 * day), "UNKNOWN "},
		{"198.51.100.1", 1100, ago(time.Hour), "UNSPECIFIED "}, // a present binding, which this history does not know
	} {
		res, err := c.LookupOutside(t.Context(), &pb.LookupOutsideRequest{OutsideAddress: q.outside, Port: q.port, At: timestamppb.New(q.at), Proof: true})
		a := res.GetAnswer()
		got := strings.TrimPrefix(a.GetVerdict().String(), "HISTORY_VERDICT_") + " " + a.GetRecord().GetUserName()
		if err != nil || got != q.want {
			t.Errorf("%s:%d at %v: %v (%s), %v, want %s", q.outside, q.port, q.at, got, a.GetDetail(), err, q.want)
		}
		if a.GetRecord() == nil {
			continue
		}
		if a.GetProof() == "" {
			t.Errorf("%s:%d at %v: no proof: %s", q.outside, q.port, q.at, a.GetProofMissing())
		} else if r, err := history.VerifyProof([]byte(a.GetProof()), h.Key); err != nil || r.Holder.UserName != a.GetRecord().GetUserName() {
			t.Errorf("%s:%d at %v: the proof: %+v, %v", q.outside, q.port, q.at, r, err)
		}
	}
	res, err := c.LookupOutside(t.Context(), &pb.LookupOutsideRequest{OutsideAddress: "198.51.100.9", At: timestamppb.New(ago(2 * day)), PageSize: 1})
	if err != nil || len(res.GetCandidates()) != 1 || res.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", res, err)
	}
	more, err := c.LookupOutside(t.Context(), &pb.LookupOutsideRequest{OutsideAddress: "198.51.100.9", At: timestamppb.New(ago(2 * day)), PageToken: res.GetNextPageToken()})
	if err != nil || len(more.GetCandidates()) != 1 || more.GetNextPageToken() != "" || more.GetCandidates()[0].GetUserName() == res.GetCandidates()[0].GetUserName() {
		t.Errorf("%v, %v", more, err)
	}
	if _, err := c.LookupOutside(t.Context(), &pb.LookupOutsideRequest{OutsideAddress: "198.51.100.9", At: timestamppb.New(ago(3 * day)), PageToken: res.GetNextPageToken()}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a token of another question: %v", err)
	}
}

// TestListHistory: the ports of a user, with the gaps of the time.
func TestListHistory(t *testing.T) {
	t.Parallel()
	_, c, _ := servePast(t)
	var ports []uint32
	for token := ""; ; {
		res, err := c.ListHistory(t.Context(), &pb.ListHistoryRequest{UserName: "erin", PageSize: 1, PageToken: token})
		if err != nil || len(res.GetGaps()) != 1 || !res.GetKnownUntil().AsTime().Equal(ago(time.Second)) {
			t.Fatalf("%v, %v", res, err)
		}
		for _, r := range res.GetRecords() {
			ports = append(ports, r.GetFirstPort())
		}
		if token = res.GetNextPageToken(); token == "" {
			break
		}
	}
	if fmt.Sprint(ports) != "[5064 5000]" {
		t.Errorf("erin had %v", ports)
	}
	res, err := c.ListHistory(t.Context(), &pb.ListHistoryRequest{InsideAddress: "100.64.1.5", To: timestamppb.New(ago(2 * day))})
	if err != nil || len(res.GetRecords()) != 1 || len(res.GetGaps()) != 0 || res.GetRecords()[0].GetAcctSessionId() != "of erin" {
		t.Errorf("%v, %v", res, err)
	}
	if _, err := c.ListHistory(t.Context(), &pb.ListHistoryRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("nobody's history: %v", err)
	}
}

// TestExportHistory: each answer says by itself what it is about, and can be proved.
func TestExportHistory(t *testing.T) {
	t.Parallel()
	_, c, h := servePast(t)
	ask := func(req *pb.ExportHistoryRequest) ([]*pb.ExportHistoryResponse, error) {
		stream, err := c.ExportHistory(t.Context(), req)
		if err != nil {
			return nil, err
		}
		return all(stream.Recv)
	}
	list, err := ask(&pb.ExportHistoryRequest{UserName: "erin", CaseNumber: "4711", Reason: "court"})
	if err != nil || len(list) != 5 { // two records, the gap, before the history, behind it
		t.Fatalf("%v, %v", list, err)
	}
	for i, x := range list {
		if x.GetCaseNumber() != "4711" || x.GetReason() != "court" || x.GetAskedBy() == "" || x.GetPublicKey() != h.Key || !strings.Contains(x.GetQuestion(), "erin") || !x.GetAskedAt().AsTime().Equal(controltest.Now) {
			t.Errorf("answer %d: %v", i, x)
		}
		if held := i < 2; held != (x.GetAnswer().GetVerdict() == pb.HistoryVerdict_HISTORY_VERDICT_HELD) {
			t.Errorf("answer %d: %v", i, x)
		}
	}
	if _, err := history.VerifyProof([]byte(list[1].GetAnswer().GetProof()), h.Key); err != nil {
		t.Error(err)
	}
	for name, q := range map[string]struct {
		req  *pb.ExportHistoryRequest
		want int
		code codes.Code
	}{
		"a port":       {&pb.ExportHistoryRequest{OutsideAddress: "198.51.100.9", Port: 5000, At: timestamppb.New(ago(2 * day)), CaseNumber: "1", Reason: "r"}, 1, codes.OK},
		"an address":   {&pb.ExportHistoryRequest{OutsideAddress: "198.51.100.9", At: timestamppb.New(ago(2 * day)), CaseNumber: "1", Reason: "r"}, 2, codes.OK},
		"nobody":       {&pb.ExportHistoryRequest{OutsideAddress: "198.51.100.10", At: timestamppb.New(ago(2 * day)), CaseNumber: "1", Reason: "r"}, 1, codes.OK},
		"a try":        {&pb.ExportHistoryRequest{UserName: "erin", CaseNumber: "1", Reason: "r", ValidateOnly: true}, 0, codes.OK},
		"no case":      {&pb.ExportHistoryRequest{UserName: "erin", Reason: "r"}, 0, codes.InvalidArgument},
		"no reason":    {&pb.ExportHistoryRequest{UserName: "erin", CaseNumber: "1"}, 0, codes.InvalidArgument},
		"no question":  {&pb.ExportHistoryRequest{CaseNumber: "1", Reason: "r"}, 0, codes.InvalidArgument},
		"two of them":  {&pb.ExportHistoryRequest{UserName: "erin", OutsideAddress: "198.51.100.9", At: timestamppb.New(ago(day)), CaseNumber: "1", Reason: "r"}, 0, codes.InvalidArgument},
		"no time":      {&pb.ExportHistoryRequest{OutsideAddress: "198.51.100.9", CaseNumber: "1", Reason: "r"}, 0, codes.InvalidArgument},
		"a port alone": {&pb.ExportHistoryRequest{UserName: "erin", Port: 5000, CaseNumber: "1", Reason: "r"}, 0, codes.InvalidArgument},
	} {
		if list, err := ask(q.req); status.Code(err) != q.code || len(list) != q.want {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// TestEraseVerifyBackup: an erased identity is gone and the history verifies; a backup is a history that verifies;
// a changed octet is found.
func TestEraseVerifyBackup(t *testing.T) {
	t.Parallel()
	_, c, h := servePast(t)
	verify := func(known ...string) (*pb.VerifyHistoryResponse, error) {
		stream, err := c.VerifyHistory(t.Context(), &pb.VerifyHistoryRequest{KnownCheckpoints: known})
		if err != nil {
			return nil, err
		}
		list, err := all(stream.Recv)
		if err != nil || len(list) != 1 {
			return nil, err
		}
		return list[0], nil
	}
	before, err := verify()
	if err != nil || before.GetFlaw() != 0 || before.GetRecords() == 0 || len(before.GetCheckpoints()) == 0 || before.GetPublicKey() != h.Key {
		t.Fatalf("%v, %v", before, err)
	}
	for _, req := range []*pb.EraseHistoryRequest{{Reason: "r"}, {UserName: "erin"}} {
		if _, err := c.EraseHistory(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
	if res, err := c.EraseHistory(t.Context(), &pb.EraseHistoryRequest{UserName: "erin", Reason: "r", ValidateOnly: true}); err != nil || res.GetErased() != 0 {
		t.Errorf("%v, %v", res, err)
	}
	if res, err := c.ListHistory(t.Context(), &pb.ListHistoryRequest{UserName: "erin"}); err != nil || len(res.GetRecords()) != 2 {
		t.Errorf("a try has erased: %v, %v", res, err)
	}
	if res, err := c.EraseHistory(t.Context(), &pb.EraseHistoryRequest{UserName: "erin", Reason: "r"}); err != nil || res.GetErased() == 0 {
		t.Errorf("%v, %v", res, err)
	}
	if res, err := c.ListHistory(t.Context(), &pb.ListHistoryRequest{UserName: "erin"}); err != nil || len(res.GetRecords()) != 0 {
		t.Errorf("not erased: %v, %v", res, err)
	}
	if after, err := verify(before.GetCheckpoints()...); err != nil || after.GetFlaw() != 0 || after.GetRecords() != before.GetRecords() {
		t.Errorf("%v, %v", after, err)
	}
	if _, err := verify("none"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a checkpoint that is none: %v", err)
	}
	stream, err := c.BackupHistory(t.Context(), &pb.BackupHistoryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	pieces, err := all(stream.Recv)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	for _, p := range pieces {
		archive.Write(p.GetData())
	}
	files := 0
	for r := tar.NewReader(&archive); ; files++ {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if files != int(before.GetFiles()) {
		t.Errorf("a backup of %d files, want %d", files, before.GetFiles())
	}
	days, _ := filepath.Glob(filepath.Join(h.Path, "*", "*.day"))
	if len(days) == 0 {
		t.Fatal("no day's file")
	}
	data, err := os.ReadFile(days[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(days[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if flawed, err := verify(); err != nil || flawed.GetFlaw() == 0 || flawed.GetFlawFile() != days[0] {
		t.Errorf("%v, %v", flawed, err)
	}
}

// TestHistoryOrders: what leaves the history, or is removed from it, is an order with the caller, the reason
// and the request's name; without an entry in the audit trail nothing is.
func TestHistoryOrders(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(c pb.HistoryServiceClient) error{
		"ExportHistory": func(c pb.HistoryServiceClient) error {
			stream, err := c.ExportHistory(t.Context(), &pb.ExportHistoryRequest{UserName: "erin", CaseNumber: "4711", Reason: "ticket 7", RequestId: "r1"})
			if err == nil {
				_, err = all(stream.Recv)
			}
			return err
		},
		"BackupHistory": func(c pb.HistoryServiceClient) error {
			stream, err := c.BackupHistory(t.Context(), &pb.BackupHistoryRequest{Reason: "ticket 7", RequestId: "r1"})
			if err == nil {
				_, err = all(stream.Recv)
			}
			return err
		},
		"EraseHistory": func(c pb.HistoryServiceClient) error {
			_, err := c.EraseHistory(t.Context(), &pb.EraseHistoryRequest{UserName: "erin", Reason: "ticket 7", RequestId: "r1"})
			return err
		},
	} {
		h, b := controltest.History(t), controltest.Scene()
		s := controltest.Serve(t, b, func(o *control.Options) { o.History = func() (control.History, error) { return h, nil } })
		c := pb.NewHistoryServiceClient(dial(t, s.Address))
		if err := call(c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(b.Audits.Begun) != 1 || b.Audits.Begun[0] == nil {
			t.Fatalf("%s: orders %v", name, b.Audits.Begun)
		}
		if o := b.Audits.Begun[0]; o.Method != name || o.Reason != "ticket 7" || o.RequestID != "r1" || o.Name != "user:0" || o.Role == "" {
			t.Errorf("%s: order %+v", name, o)
		}
		b.Audits.Err = inspect.ErrUnavailable
		if err := call(c); status.Code(err) != codes.Unavailable {
			t.Errorf("%s without an audit trail: %v", name, err)
		}
	}
}

// TestWithoutHistory: without a history lookups answer as before, and HistoryService says why it cannot.
func TestWithoutHistory(t *testing.T) {
	t.Parallel()
	for _, want := range []struct {
		err    error
		code   codes.Code
		lookup codes.Code
	}{{inspect.ErrNoHistory, codes.FailedPrecondition, codes.NotFound}, {inspect.ErrHistoryDown, codes.Unavailable, codes.Unavailable}} {
		s := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.History = func() (control.History, error) { return nil, want.err } })
		conn := dial(t, s.Address)
		_, err := pb.NewHistoryServiceClient(conn).ListHistory(t.Context(), &pb.ListHistoryRequest{UserName: "alice"})
		if status.Code(err) != want.code {
			t.Errorf("%v: %v", want.err, err)
		}
		nats := pb.NewNatServiceClient(conn)
		if _, err := nats.LookupOutside(t.Context(), &pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 1100, At: timestamppb.New(ago(2 * day))}); status.Code(err) != want.lookup {
			t.Errorf("%v: %v", want.err, err)
		}
		if res, err := nats.LookupOutside(t.Context(), &pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 1100, At: timestamppb.New(ago(time.Hour))}); err != nil || res.GetBinding() == nil {
			t.Errorf("%v: the present bindings know it: %v, %v", want.err, res, err)
		}
		if _, err := nats.LookupOutside(t.Context(), &pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", At: timestamppb.New(ago(time.Hour))}); status.Code(err) != want.code {
			t.Errorf("%v: %v", want.err, err)
		}
	}
}
