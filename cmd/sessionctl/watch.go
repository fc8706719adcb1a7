package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/clock"
)

const watchLong = `watch shows events as they happen, until interrupted. When the connection is lost, or
the daemon restarts, it connects again and goes on where it was. Where it cannot
have all events it says so: on stderr, or with -o json in a line and with -o yaml in
a document with "gap".

With -o json each event has a resume_token, behind which --resume goes on later.`

func (a subscriberCommands) watchCommand() *cobra.Command {
	w := follower{subscriberCommands: a, wait: clock.Sleep}
	c := &cobra.Command{
		Use:     "watch",
		Short:   "Show events as they happen, until interrupted",
		Long:    watchLong,
		Example: "  sessionctl watch --nas bng1.example\n  sessionctl watch --list --inside 100.64.3.0/24\n  sessionctl watch -o json | jq .kind",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := prefix("--inside", w.pick.inside); err != nil {
				return err
			}
			err := w.follow(c.Context())
			if c.Context().Err() != nil {
				return nil // interrupted, the normal end of a watch
			}
			return err
		},
	}
	w.pick.register(c.Flags())
	flags := c.Flags()
	flags.BoolVar(&w.list, "list", false, "begin with those who are online, and list anew where changes were missed")
	flags.StringVar(&w.token, "resume", "", "go on behind the event with this resume `token`")
	flags.BoolVar(&w.reconnect, "reconnect", true, "connect again when the connection is lost")
	a.completePicks(c)
	complete(c, "resume")
	return c
}

// watchWidths fit most events, because future events are not known.
var watchWidths = []int{20, 8, 11, 8, 15, 16, 15, 11}

// Of a watch that lost its connection: the first and the longest pause before it tries again,
// and the interval at which its resume token is renewed while nothing happens.
const (
	firstPause    = 200 * time.Millisecond
	longestPause  = 5 * time.Second
	watchProgress = 10 * time.Second
)

// follower is a watch that goes on over lost connections.
type follower struct {
	subscriberCommands
	pick      subscriberFlags
	list      bool
	reconnect bool
	token     string // behind the last message
	wait      func(context.Context, time.Duration) error

	out   *list[*pb.SubscriberEvent]
	begun bool // a stream was served once
	away  bool // a lost connection was told of

	listing func() // ends the progress of the list that comes now; nil without one
}

// follow prints events until the context ends, or an error that does not pass.
func (w *follower) follow(ctx context.Context) error {
	w.out = newList(&w.printer, []string{"TIME", "EVENT", "REASON", "GROUP", "INSIDE", "USER", "OUTSIDE", "PORTS", "SESSIONS"}, w.eventRow)
	w.out.leastImportant("GROUP", "SESSIONS", "PORTS", "OUTSIDE")
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		served, err := w.stream(ctx)
		if served {
			pause = firstPause
		}
		if !w.reconnect || !w.begun || !passing(err) || ctx.Err() != nil {
			return err
		}
		if !w.away {
			w.away = true
			fmt.Fprintf(w.stderr, "sessionctl: %s; connecting again\n", status.Convert(err).Message())
		}
		if err := w.wait(ctx, pause); err != nil {
			return err
		}
	}
}

// passing reports whether a watch that ended so may be served again soon.
func passing(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	s := status.Convert(err)
	return s.Code() == codes.Unavailable || reasonOf(s) == "READER_STALLED"
}

// stream prints the events of one call, and reports whether the call was served.
func (w *follower) stream(ctx context.Context) (served bool, err error) {
	client, err := w.subscribers()
	if err != nil {
		return false, err
	}
	stream, err := client.WatchSubscribers(ctx, &pb.WatchSubscribersRequest{
		Group: w.pick.group, Nas: w.pick.nas, UserName: w.pick.user, Inside: w.pick.inside,
		UserNamePrefix: w.pick.userPrefix, CallingStationId: w.pick.station, AcctSessionId: w.pick.session,
		ResumeToken: w.token, TellGaps: true, List: w.list, Batch: true, ProgressInterval: durationpb.New(watchProgress),
	})
	if err != nil {
		return false, err
	}
	md, err := stream.Header()
	if err == nil && md == nil { // refused: the error is in the trailer
		_, err = stream.Recv()
	}
	if err != nil {
		return false, err
	}
	if !w.begun && w.forPeople() {
		if err := w.out.table.stream(watchWidths...); err != nil {
			return true, err
		}
	}
	if w.away {
		text := "connected again"
		if w.token == "" && !w.list { // from a daemon that gives no tokens
			text += "; events in between are missing"
		}
		fmt.Fprintln(w.stderr, "sessionctl: "+text)
	}
	w.begun, w.away = true, false
	defer w.showProgress(&pb.WatchSubscribersResponse{Listed: true})
	for {
		res, err := stream.Recv()
		if err != nil {
			return true, err
		}
		if err := w.show(res); err != nil {
			return true, err
		}
	}
}

// showProgress shows how far a list has come, until it is complete.
func (w *follower) showProgress(res *pb.WatchSubscribersResponse) {
	if p := res.GetListProgress(); p != nil {
		if w.listing == nil {
			w.listing = w.progress.begin()
		}
		w.progress.reached(int(p.GetListed()), int(p.GetTotal()))
	}
	if res.GetListed() && w.listing != nil {
		w.listing()
		w.listing = nil
	}
}

// show prints one message, and keeps its token.
func (w *follower) show(res *pb.WatchSubscribersResponse) error {
	w.showProgress(res)
	events := res.GetEvents()
	if e := res.GetEvent(); e != nil { // of a daemon that sends one at a time
		events = append(events, e)
	}
	for _, e := range events {
		if e.GetResumeToken() != "" {
			w.token = e.GetResumeToken()
		}
		if err := w.out.add(e); err != nil {
			return err
		}
	}
	if len(events) > 0 {
		return nil
	}
	if res.GetResumeToken() != "" {
		w.token = res.GetResumeToken()
	}
	switch {
	case !w.forPeople() && w.format != formatCSV && (res.GetGap() != nil || res.GetListed()):
		return w.message(res) // between the records of CSV it would have columns of its own
	case res.GetGap() != nil:
		fmt.Fprintln(w.stderr, "sessionctl: "+w.gapText(res.GetGap()))
	}
	return nil
}

// gapText says which events are missing, why, and what to do.
func (w *follower) gapText(g *pb.WatchGap) string {
	text := "events are missing here"
	if g.GetMissed() > 0 {
		text = plural(uint32(min(g.GetMissed(), math.MaxUint32)), "event") + " of all subscribers missing here"
	}
	if g.GetGroup() != "" {
		text += ", of group " + g.GetGroup()
	}
	switch g.GetCause() {
	case pb.GapCause_GAP_CAUSE_BEHIND:
		text += ": they came faster than they were read, or too long ago"
	case pb.GapCause_GAP_CAUSE_RESTARTED:
		text += ": the daemon was started anew"
	case pb.GapCause_GAP_CAUSE_FEED_LOST:
		text += ": Redis lost them, or was away"
	}
	switch {
	case !g.GetListAgain():
		text += "; changes of records (CREATED, UPDATED, DELETED) are complete"
	case w.list:
		text += "; those online follow"
	default:
		text += "; `sessionctl subscriber list` shows who is online"
	}
	return text
}

func (p *printer) eventRow(e *pb.SubscriberEvent) []string {
	s := e.GetSubscriber()
	return []string{
		p.stamp(e.GetAt().AsTime()),
		strings.TrimPrefix(e.GetKind().String(), "EVENT_KIND_"), whyText(e),
		s.GetGroup(), s.GetInsideAddress(), or(s.GetUserName(), none),
		or(s.GetBinding().GetOutsideAddress(), none), ports(s.GetBinding()), sessionsText(e),
	}
}

// whyText returns the reason of an event, or the limits that a subscriber has
// reached.
func whyText(e *pb.SubscriberEvent) string {
	if e.GetKind() == pb.EventKind_EVENT_KIND_LIMIT_REACHED {
		return strings.Join(e.GetLimits(), ",")
	}
	return reasonText(e.GetReason())
}

func reasonText(r pb.Reason) string {
	if r == pb.Reason_REASON_UNSPECIFIED {
		return none
	}
	return strings.TrimPrefix(r.String(), "REASON_")
}

// sessionsText returns the number of sessions that an event ended, or else of
// present ones.
func sessionsText(e *pb.SubscriberEvent) string {
	if e.GetKind() == pb.EventKind_EVENT_KIND_REAPED {
		return number(e.GetSessionsEnded()) + " ended"
	}
	if e.GetSubscriber().GetBinding() == nil {
		return none
	}
	return number(e.GetSubscriber().GetBinding().GetSessions())
}
