package control

import (
	"hash/crc32"
	"slices"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// listedTogether is the number of subscribers that a watch lists between two looks at the events.
// The events that come meanwhile have to be kept, however slow the reader is.
const listedTogether = 256

// watchList is what a watch has yet to list: of some groups, or of all, those online behind a key.
// It lists page by page, and gives the events in between. So the reader of a long list falls behind
// by no more events than come during one page. A page is read behind the events before it: the last
// message about a subscriber tells its state (decision 0072).
type watchList struct {
	parts []listPart
	count int // subscribers listed since it began
}

// listPart is the part of one group, or of all.
type listPart struct {
	group string         // "" for all
	after subscriber.Key // was listed last
}

// begun reports whether a part of the subscribers of a group was listed.
func (p *listPart) begun(group string) bool {
	if p.group != "" {
		return p.after != subscriber.Key{}
	}
	return p.after.Group >= group && p.after != subscriber.Key{}
}

// demand adds the subscribers of a group, or of all, from the first one on. It returns false
// where they are to be listed already, and none of them was.
func (l *watchList) demand(group string) bool {
	if group == "" {
		if len(l.parts) == 1 && l.parts[0] == (listPart{}) {
			return false
		}
		*l = watchList{parts: []listPart{{}}}
		return true
	}
	for i := range l.parts {
		if p := &l.parts[i]; (p.group == "" || p.group == group) && !p.begun(group) {
			return false
		}
	}
	l.parts = slices.DeleteFunc(l.parts, func(p listPart) bool { return p.group == group })
	if len(l.parts) == 0 {
		l.count = 0
	}
	l.parts = append(l.parts, listPart{group: group})
	return true
}

// more reports whether there is anything left to list.
func (l *watchList) more() bool { return len(l.parts) > 0 }

// place returns what a resume token tells of the list: where it is, or that it has to begin
// anew, which is always right.
func (l *watchList) place(f inspect.SubscriberFilter) *listPlace {
	switch len(l.parts) {
	case 0:
		return nil
	case 1:
		return &listPlace{filter: filterSum(f), listed: l.count, listPart: l.parts[0]}
	}
	return &listPlace{filter: filterSum(f)}
}

// listPlace is a place in the list of a watch that has not come to its end.
type listPlace struct {
	filter uint32 // checksum of the filter of the list
	listed int    // subscribers before it
	listPart
}

// resumed returns the list that goes on at a place, for a watch with a filter. The list of another
// filter begins anew.
func (p *listPlace) resumed(f inspect.SubscriberFilter) watchList {
	if p.filter != filterSum(f) {
		return watchList{parts: []listPart{{}}}
	}
	return watchList{parts: []listPart{p.listPart}, count: p.listed}
}

func filterSum(f inspect.SubscriberFilter) uint32 {
	return crc32.ChecksumIEEE([]byte(scopeOf("watch", f)))
}

// listedAtOnce returns the number of subscribers that a message lists.
func (w *eventStream) listedAtOnce() int {
	if w.batch {
		return 32
	}
	return 1
}

// page sends the next subscribers of the list, and then how far it has come. behind is the
// position of the events before it.
func (w *eventStream) page(behind inspect.Position) error {
	part := &w.list.parts[0]
	f := w.filter
	if part.group != "" {
		f.Group = part.group
	}
	ctx := w.stream.Context()
	page, next, err := w.service.backend.Subscribers(ctx, f, part.after, listedTogether)
	if err != nil {
		return err
	}
	now := timestamp(w.service.now())
	for part := range slices.Chunk(page, w.listedAtOnce()) {
		res := &pb.WatchSubscribersResponse{}
		for i := range part {
			e := &pb.SubscriberEvent{At: now, Kind: pb.EventKind_EVENT_KIND_LISTED, Subscriber: toSubscriber(&part[i])}
			if w.batch {
				res.Events = append(res.Events, e)
			} else {
				res.Event = e
			}
		}
		if err := w.stream.Send(res); err != nil {
			return err
		}
	}
	w.list.count += len(page)
	progress := &pb.WatchListProgress{Listed: count(w.list.count)}
	if n, counted := w.service.backend.SubscriberTotal(ctx, f); counted && len(w.list.parts) == 1 {
		progress.Total = total(n)
	}
	if part.after = next; next == (subscriber.Key{}) {
		w.list.parts = w.list.parts[1:]
	}
	return w.stream.Send(&pb.WatchSubscribersResponse{
		Listed: !w.list.more(), ListProgress: progress, ResumeToken: w.token(behind),
	})
}
