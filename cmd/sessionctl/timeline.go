package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// happening is one event in the life of a subscriber.
type happening struct {
	at                     time.Time
	event, inside, outside string
	ports, detail          string
}

var timelineHeader = []string{"TIME", "EVENT", "INSIDE", "OUTSIDE", "PORTS", "DETAIL"}

// timeline prints what happened to a subscriber, the latest first: the ends of its sessions with
// their steps, and its ports by the history. Without a history it prints nothing.
func (a subscriberCommands) timeline(ctx context.Context, req *pb.ListEndingsRequest, endings []*pb.Ending) error {
	client, err := a.pasts()
	if err != nil {
		return err
	}
	list := &pb.ListHistoryRequest{
		PageSize: pageSize, Group: req.GetGroup(), UserName: req.GetUserName(), InsideAddress: req.GetInside(), From: req.GetStartTime(), To: req.GetEndTime(),
	}
	var records []*pb.HistoryRecord
	var page *pb.ListHistoryResponse
	err = eachPage(ctx, func(ctx context.Context, token string) (*pb.ListHistoryResponse, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		list.PageToken = token
		page, err = client.ListHistory(ctx, list)
		return page, page.GetNextPageToken(), err
	}, func(page *pb.ListHistoryResponse) error {
		records = append(records, page.GetRecords()...)
		return nil
	})
	switch status.Code(err) {
	case codes.OK:
	case codes.FailedPrecondition, codes.Unimplemented: // no history is configured, or the daemon is older
		return nil
	default:
		return err
	}
	if _, err := fmt.Fprint(a.stdout, "\nWhat happened, the latest first:\n\n"); err != nil {
		return err
	}
	out := newTable(a.stdout, timelineHeader)
	for _, h := range happenings(endings, records) {
		if err := out.gather([]string{a.exact(h.at), h.event, or(h.inside, none), or(h.outside, none), or(h.ports, none), or(h.detail, none)}); err != nil {
			return err
		}
	}
	if err := out.end(); err != nil {
		return err
	}
	if _, err = fmt.Fprint(a.stdout, "\nNot shown, as nobody keeps them: interim updates, and limits that were reached.\n"); err != nil {
		return err
	}
	return historyCommands(a).reach(page)
}

// happenings merges the steps of endings and the records of ports, the latest first.
func happenings(endings []*pb.Ending, records []*pb.HistoryRecord) (list []happening) {
	for _, e := range endings {
		add := func(at interface{ AsTime() time.Time }, event, detail string) {
			list = append(list, happening{at.AsTime(), event, e.GetInsideAddress(), e.GetOutsideAddress(), "", detail})
		}
		if e.GetStartTime() != nil {
			add(e.GetStartTime(), "start", "session "+or(e.GetAcctSessionId(), none)+" at "+or(e.GetNas(), none))
		}
		add(e.GetEndTime(), "end", endReason(e.GetReason(), e.GetTerminateCause()))
		if e.GetResumeTime() != nil {
			add(e.GetResumeTime(), "back", "in the grace time, nothing was removed")
		}
		r := e.GetReceipt()
		if r.GetCutAt() != nil {
			add(r.GetCutAt(), "cut", "packets stopped; "+plural(r.GetElementsRemoved(), "element")+" removed")
		}
		if r.GetReapedAt() != nil {
			add(r.GetReapedAt(), "reaped", removalResult(e))
		}
		if r.GetReleasedAt() != nil {
			add(r.GetReleasedAt(), "released", "ports in quarantine; the receipt is complete")
		}
	}
	for _, r := range records {
		h := happening{
			at: r.GetAllocatedAt().AsTime(), event: "bound", inside: r.GetInsideAddress(), outside: r.GetOutsideAddress(),
			ports: fmt.Sprintf("%d-%d", r.GetFirstPort(), r.GetLastPort()), detail: "session " + or(r.GetAcctSessionId(), none),
		}
		if slices.ContainsFunc(records, func(x *pb.HistoryRecord) bool { return before(x, r) }) {
			h.event = "grown"
		}
		list = append(list, h)
		if r.GetReleasedAt() != nil {
			h.at, h.event, h.detail = r.GetReleasedAt().AsTime(), "given back", ""
			if r.GetReleasedBy() != nil {
				h.detail = "some time before " + utc(r.GetReleasedBy().AsTime())
			}
			list = append(list, h)
		}
	}
	slices.SortStableFunc(list, func(x, y happening) int {
		return cmp.Or(y.at.Compare(x.at), strings.Compare(x.inside, y.inside))
	})
	return list
}

// before reports whether a record was there when another one of the same binding began.
func before(x, r *pb.HistoryRecord) bool {
	began := r.GetAllocatedAt().AsTime()
	return x != r && x.GetInsideAddress() == r.GetInsideAddress() && x.GetOutsideAddress() == r.GetOutsideAddress() &&
		x.GetAllocatedAt().AsTime().Before(began) && (x.GetReleasedAt() == nil || x.GetReleasedAt().AsTime().After(began))
}
