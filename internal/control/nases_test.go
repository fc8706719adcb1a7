package control_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

func namesOf(list []*pb.Nas) string {
	names := []string{}
	for _, n := range list {
		names = append(names, n.GetClient()+"/"+n.GetName())
	}
	return fmt.Sprint(names)
}

func TestListNases(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	for _, tt := range []struct {
		req  *pb.ListNasesRequest
		want string
	}{
		{&pb.ListNasesRequest{}, "[bng1/bng1.example core/bng2.example core/bng3.example core/bng4.example proxy2/bng1.example site1/MikroTik site2/MikroTik]"},
		{&pb.ListNasesRequest{Client: "core", PageSize: 2}, "[core/bng2.example core/bng3.example]"},
		{&pb.ListNasesRequest{Name: "bng1.example"}, "[bng1/bng1.example proxy2/bng1.example]"},
		{&pb.ListNasesRequest{Name: "bng1.example", Client: "core"}, "[]"},
	} {
		res, err := c.ListNases(t.Context(), tt.req)
		if err != nil {
			t.Fatal(err)
		}
		if got := namesOf(res.GetNases()); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.req, got, tt.want)
		}
	}
	for name, req := range map[string]*pb.ListNasesRequest{"token": {PageToken: "x"}, "size": {PageSize: -1}} {
		if _, err := c.ListNases(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}

func TestNasFields(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	res, err := c.ListNases(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	right, behind, at1970, silent, other := res.GetNases()[0], res.GetNases()[1], res.GetNases()[2], res.GetNases()[3], res.GetNases()[4]
	if right.GetSubscribers() != 2 || right.GetClockOffset().AsDuration() != -time.Second || right.GetLastRestartAt() == nil ||
		!right.GetLastHeardAt().AsTime().Equal(controltest.Now.Add(-3*time.Second)) || right.SameAs != nil || len(right.Refused) != 0 {
		t.Errorf("in order: %v", right)
	}
	if behind.GetClockOffset().AsDuration() != -8*time.Hour || behind.GetClockUnheeded() || behind.GetRefused()["stale"] != 1204 || behind.LastRestartAt != nil {
		t.Errorf("hours behind: %v", behind)
	}
	if !at1970.GetClockUnheeded() || at1970.GetClockOffset().AsDuration() > -56*365*24*time.Hour {
		t.Errorf("at 1970: %v", at1970)
	}
	if silent.LastHeardAt != nil || silent.ClockOffset != nil || silent.GetSubscribers() != 7 {
		t.Errorf("not heard of: %v", silent)
	}
	if other.GetSameAs().GetClient() != "bng1" || other.GetSameAs().GetName() != "bng1.example" {
		t.Errorf("heard of through another client: %v", other)
	}
}

func TestNasPages(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Routers = nil
	for i := range 250 {
		name := fmt.Sprintf("%c\x00 /%%41\n\xff", i*7%250)
		b.Routers = append(b.Routers, inspect.NAS{NASKey: inspect.NASKey{Client: "core\xfe", Name: name}})
	}
	c := serve(t, b)
	seen := map[string]bool{}
	req := &pb.ListNasesRequest{PageSize: 100, Client: "core%FE"}
	for {
		page, err := c.ListNases(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range page.GetNases() {
			seen[n.GetName()] = true
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if len(seen) != 250 || b.Pages.Load() != 3 {
		t.Errorf("%d NASes in %d pages", len(seen), b.Pages.Load())
	}
}

func TestGetNas(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	odd := inspect.NASKey{Client: "core", Name: "eve\r\n\x1b[2J\x00\xff 100%41"}
	b.Routers = append(b.Routers, inspect.NAS{NASKey: odd, Refused: map[string]uint64{"odd\x1b": 1}})
	for i := range 10 {
		b.Routers = append(b.Routers, inspect.NAS{NASKey: inspect.NASKey{Client: fmt.Sprint("site", 10+i), Name: "MikroTik"}})
	}
	c := serve(t, b)
	const shown = "eve%0D%0A%1B[2J%00%FF 100%2541"
	for _, tt := range []struct {
		req  *pb.GetNasRequest
		want string // client/name
		code codes.Code
		tell string
	}{
		{&pb.GetNasRequest{Name: "bng2.example"}, "core/bng2.example", codes.OK, ""},
		{&pb.GetNasRequest{Name: "bng1.example"}, "bng1/bng1.example", codes.OK, ""}, // the one of proxy2 is the same
		{&pb.GetNasRequest{Name: "bng1.example", Client: "proxy2"}, "proxy2/bng1.example", codes.OK, ""},
		{&pb.GetNasRequest{Name: "MikroTik", Client: "site1"}, "site1/MikroTik", codes.OK, ""},
		{&pb.GetNasRequest{Name: shown}, "core/" + shown, codes.OK, ""},
		{&pb.GetNasRequest{Name: "MikroTik"}, "", codes.InvalidArgument, "site1, site10, site11, site12, site13, site14, site15, site16 and 4 more have a NAS of that name"},
		{&pb.GetNasRequest{Name: "nobody"}, "", codes.NotFound, "nas nobody"},
		{&pb.GetNasRequest{Name: "bng2.example", Client: "bng1"}, "", codes.NotFound, "nas bng2.example"},
		{&pb.GetNasRequest{Client: "core"}, "", codes.InvalidArgument, "name"},
	} {
		res, err := c.GetNas(t.Context(), tt.req)
		if status.Code(err) != tt.code || !strings.Contains(status.Convert(err).Message(), tt.tell) {
			t.Errorf("%v: %v", tt.req, err)
		}
		if n := res.GetNas(); err == nil && n.GetClient()+"/"+n.GetName() != tt.want {
			t.Errorf("%v: %v", tt.req, n)
		}
	}
	res, err := c.GetNas(t.Context(), &pb.GetNasRequest{Name: shown})
	if err != nil || res.GetNas().GetRefused()["odd%1B"] != 1 {
		t.Errorf("%v, %v", res, err)
	}
}
