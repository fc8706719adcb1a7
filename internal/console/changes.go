package console

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/measure"
	"github.com/sessiond/sessiond/internal/rawtext"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// effect writes a sentence about a change: that it would do something, or did it.
func effect(o changeOrder, would, did string, args ...any) string {
	if o.ValidateOnly {
		return fmt.Sprintf(would, args...)
	}
	return fmt.Sprintf(did, args...)
}

// counted writes a number with its noun.
func counted(n uint32, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return measure.Count(int(n)) + " " + noun
}

// endSubscriber deletes the record of the session that its page was about, and no other that has the
// address by now. It does not name the record's version, which each Interim changes, unless the record
// has nothing else that tells it from another one.
func (c *Console) endSubscriber(ctx context.Context, in changeInput, o changeOrder) (changeText, error) {
	text := changeText{Title: "End " + in.Address.String(), Button: "End this subscriber", Back: customerPath(in.Address)}
	q := &pb.DeleteSubscribersRequest{
		Group: in.Get("group"), Inside: in.Address.String(), UserName: in.Get("user"), AcctSessionId: in.Get("session"),
		Reason: o.Reason, RequestId: o.RequestID, ValidateOnly: o.ValidateOnly,
	}
	if q.GetUserName() == "" && q.GetAcctSessionId() == "" {
		if q.Etag = in.Get("etag"); q.GetEtag() == "" && !o.ValidateOnly {
			return text, badInput("this form names no session; open the page of %s again", in.Address)
		}
	}
	if o.ValidateOnly {
		s, err := c.Subscribers.Subscriber(ctx, subscriber.Key{Inside: in.Address})
		if errors.Is(err, inspect.ErrNotFound) {
			text.None, text.Effect = true, "Nobody is online at this address."
			return text, nil
		}
		if err != nil {
			return text, err
		}
		q.Group, q.UserName, q.AcctSessionId, q.Etag = s.Group, rawtext.Of(s.UserName), rawtext.Of(s.AcctSessionID), ""
		text.Hidden = []formField{{Name: "group", Value: q.Group}, {Name: "user", Value: q.UserName}, {Name: "session", Value: q.AcctSessionId}}
		if q.UserName == "" && q.AcctSessionId == "" {
			q.Etag = s.Version
			text.Hidden = append(text.Hidden, formField{Name: "etag", Value: q.GetEtag()})
		}
		if isOfAnother(in, text.Hidden) {
			text.None, text.Effect = true, "That session is over, or its record has changed. Look at who has the address now."
			return text, nil
		}
		text.About = []labelledText{{"User", q.UserName}, {"Group", q.Group}, {"NAS", rawtext.Of(s.NAS)}, {"Acct-Session-Id", q.AcctSessionId}}
		if text.Notes, err = c.endNotes(ctx); err != nil {
			return text, err
		}
	}
	res, err := c.calls.subscribers.DeleteSubscribers(ctx, q)
	if err != nil {
		return text, err
	}
	text.Effect = effect(o, "%s would end.", "%s ended.", counted(res.GetDeleted(), "subscriber"))
	switch {
	case o.ValidateOnly:
		text.Effect = fmt.Sprintf("%s would end, with %s.", counted(res.GetDeleted(), "subscriber"), counted(res.GetSessionsEnded(), "session"))
	case res.GetDeleted() == 0:
		text.Effect = "Nobody was ended: the session was over already."
	}
	return text, nil
}

// isOfAnother reports whether a form that was sent has other values than the page would have now, so
// that it was about something else.
func isOfAnother(in changeInput, now []formField) bool {
	return slices.ContainsFunc(now, func(f formField) bool { return in.Has(f.Name) && in.Get(f.Name) != f.Value })
}

// endNotes say what follows when a record is deleted.
func (c *Console) endNotes(ctx context.Context) ([]string, error) {
	s, err := c.Controls.Status(ctx)
	if err != nil {
		return nil, err
	}
	notes := []string{"The BNG is not told. If the line is up there, its next Interim brings the subscriber back."}
	if s.Settings.Removal != inspect.RemovalOn {
		notes = append(notes, fmt.Sprintf("Removal is %s: the sessions go on until they idle out.", s.Settings.Removal))
	}
	return notes, nil
}

func customerPath(inside netip.Addr) string { return Path + "subscribers/" + inside.String() }

// terminateSessions ends the sessions of an inside address: all, or those with a remote host.
func (c *Console) terminateSessions(ctx context.Context, in changeInput, o changeOrder) (changeText, error) {
	remote := strings.TrimSpace(in.Get("remote"))
	f := &pb.SessionFilter{Inside: in.Address.String(), Remote: remote}
	if host, err := netip.ParseAddrPort(remote); err == nil {
		f.Remote, f.RemotePort = host.Addr().String(), uint32(host.Port())
	}
	text := changeText{
		Title: "End sessions of " + in.Address.String(), Button: "End these sessions", Back: customerPath(in.Address),
		Filter: []formField{{
			Name: "remote", Label: "With this remote host only", Value: remote, Hint: "address, prefix, or address:port",
		}},
		Hidden: []formField{{Name: "remote", Value: remote}},
		Notes:  []string{"The subscriber stays online, and may begin new sessions at once."},
	}
	res, err := c.calls.sessions.TerminateSessions(ctx, &pb.TerminateSessionsRequest{
		Filter: f, Reason: o.Reason, RequestId: o.RequestID, ValidateOnly: o.ValidateOnly,
	})
	if err != nil {
		return text, err
	}
	with := ""
	if remote != "" {
		with = " with " + remote
	}
	text.Effect = effect(o, "%s%s would end.", "%s%s ended.", counted(res.GetTerminated(), "session"), with)
	text.None = o.ValidateOnly && res.GetTerminated() == 0
	return text, nil
}

// switchRemoval sets the mode of subscriber_session_removal.
func (c *Console) switchRemoval(ctx context.Context, in changeInput, o changeOrder) (changeText, error) {
	mode, err := inspect.ParseRemovalMode(in.Get("mode"))
	if err != nil {
		return changeText{}, badInput("mode: %.100q is none of on, off and observe", in.Get("mode"))
	}
	text := changeText{
		Title: "Set session removal to " + mode.String(), Button: "Set it to " + mode.String(), Back: Path + "settings",
		Hidden: []formField{{Name: "mode", Value: mode.String()}}, Notes: []string{modeTexts[mode]},
	}
	res, err := c.calls.controls.UpdateSettings(ctx, &pb.UpdateSettingsRequest{
		Settings: &pb.Settings{RemovalMode: modeNumbers[mode]}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"removal_mode"}},
		Reason: o.Reason, RequestId: o.RequestID, ValidateOnly: o.ValidateOnly,
	})
	if err != nil {
		return text, err
	}
	text.Effect = effect(o, "subscriber_session_removal would be %s.", "subscriber_session_removal is %s.", mode)
	if n := res.GetBindingsCut(); o.ValidateOnly && n > 0 {
		text.Effect += fmt.Sprintf(" %s would be cut, with %s.", counted(n, "draining binding"), counted(res.GetSessionsEnded(), "session"))
	}
	return text, nil
}

// modeNumbers are the modes in the API.
var modeNumbers = map[inspect.RemovalMode]pb.RemovalMode{
	inspect.RemovalOn: pb.RemovalMode_REMOVAL_MODE_ON, inspect.RemovalOff: pb.RemovalMode_REMOVAL_MODE_OFF,
	inspect.RemovalObserve: pb.RemovalMode_REMOVAL_MODE_OBSERVE,
}

// modeTexts say what a mode does.
var modeTexts = map[inspect.RemovalMode]string{
	inspect.RemovalOn:      "With on, the sessions of a subscriber are removed as soon as its record ends.",
	inspect.RemovalOff:     "With off, sessions go on behind the end of the record until they idle out, and no new one begins.",
	inspect.RemovalObserve: "With observe, nothing is removed, and the removals of on are counted and listed.",
}

// removalFields are those that select suspended removals: by "cause" because the form's "reason" is
// that of the decision.
var removalFields = []struct{ name, label string }{{"group", "Group"}, {"nas", "NAS"}, {"inside", "Inside address"}, {"cause", "Reason"}}

// removalsIn reads which suspended removals a decision is about. Its form decides about those that the
// page counted, and no others: the etag names them.
func removalsIn(in changeInput, o changeOrder) (f *pb.RemovalFilter, etag string, text changeText, err error) {
	f = &pb.RemovalFilter{Group: in.Get("group"), Nas: in.Get("nas"), Inside: in.Get("inside")}
	if name := in.Get("cause"); name != "" {
		number, ok := pb.Reason_value["REASON_"+name]
		if !ok {
			return nil, "", text, badInput("cause: %.100q is not known; write one such as EXPIRED", name)
		}
		f.Reason = pb.Reason(number)
	}
	if !o.ValidateOnly {
		if etag = in.Get("etag"); etag == "" {
			return nil, "", text, badInput("this form does not say which removals its page counted; open the page again")
		}
	}
	text.Back = Path + "removals"
	for _, field := range removalFields {
		if value := rawtext.Of(rawtext.Octets(in.Get(field.name))); value != "" {
			text.About = append(text.About, labelledText{field.label, value})
			text.Hidden = append(text.Hidden, formField{Name: field.name, Value: value})
		}
	}
	return f, etag, text, nil
}

// bindTo names the removals that a page counts in its form.
func (text *changeText) bindTo(in changeInput, o changeOrder, counted string) {
	etag := in.Get("etag")
	if !o.Begun {
		if o.ValidateOnly && etag != "" && etag != counted {
			text.Notes = append(text.Notes, "Other removals are held than before; these are the present ones.")
		}
		etag = counted
	}
	text.Hidden = append(text.Hidden, formField{Name: "etag", Value: etag})
}

// confirmRemovals carries out suspended removals.
func (c *Console) confirmRemovals(ctx context.Context, in changeInput, o changeOrder) (changeText, error) {
	f, etag, text, err := removalsIn(in, o)
	if err != nil {
		return text, err
	}
	text.Title, text.Button = "Carry out held removals", "End these subscribers"
	res, err := c.calls.removals.ConfirmRemovals(ctx, &pb.ConfirmRemovalsRequest{
		Filter: f, Etag: etag, Reason: o.Reason, RequestId: o.RequestID, ValidateOnly: o.ValidateOnly,
	})
	if err != nil {
		return text, err
	}
	text.bindTo(in, o, res.GetEtag())
	text.Effect = effect(o, "%s would end.", "%s ended.", counted(res.GetConfirmed(), "subscriber"))
	if o.ValidateOnly && res.GetConfirmed() > 0 {
		text.Effect = fmt.Sprintf("%s would end, with %s.", counted(res.GetConfirmed(), "subscriber"), counted(res.GetSessionsEnded(), "session"))
	}
	text.None = o.ValidateOnly && res.GetConfirmed() == 0
	return text, nil
}

// refuseRemovals drops suspended removals.
func (c *Console) refuseRemovals(ctx context.Context, in changeInput, o changeOrder) (changeText, error) {
	f, etag, text, err := removalsIn(in, o)
	if err != nil {
		return text, err
	}
	text.Title, text.Button = "Refuse held removals", "Keep these subscribers online"
	text.Notes = []string{"Their records stand for another record_ttl."}
	res, err := c.calls.removals.RefuseRemovals(ctx, &pb.RefuseRemovalsRequest{
		Filter: f, Etag: etag, Reason: o.Reason, RequestId: o.RequestID, ValidateOnly: o.ValidateOnly,
	})
	if err != nil {
		return text, err
	}
	text.bindTo(in, o, res.GetEtag())
	text.Effect = effect(o, "%s would stay online.", "%s kept online.", counted(res.GetRefused(), "subscriber"))
	text.None = o.ValidateOnly && res.GetRefused() == 0
	return text, nil
}

// poolText tells of a change of an outside prefix.
func poolText(in changeInput, pools []*pb.Pool) (text changeText, used, free uint32) {
	text = changeText{Back: Path + "outside", About: []labelledText{{"Outside prefix", in.Get("prefix")}, {"Group", in.Get("group")}}}
	for _, name := range []string{"group", "prefix"} {
		text.Hidden = append(text.Hidden, formField{Name: name, Value: in.Get(name)})
	}
	for _, p := range pools {
		used, free = used+p.GetBlocksUsed(), free+p.GetBlocksFree()
	}
	return text, used, free
}

// drainPool stops the allocation of blocks of an outside prefix.
func (c *Console) drainPool(ctx context.Context, in changeInput, o changeOrder) (changeText, error) {
	res, err := c.calls.nat.DrainPool(ctx, &pb.DrainPoolRequest{
		Group: in.Get("group"), OutsidePrefix: in.Get("prefix"), Reason: o.Reason, RequestId: o.RequestID, ValidateOnly: o.ValidateOnly,
	})
	text, used, free := poolText(in, res.GetPools())
	text.Title, text.Button = "Drain "+in.Get("prefix"), "Drain this prefix"
	text.Effect = effect(o, "%s would give no more blocks.", "%s gives no more blocks.", in.Get("prefix"))
	if o.ValidateOnly {
		text.Effect += fmt.Sprintf(" %s would not be allocated any more.", counted(free, "free block"))
	}
	text.Notes = []string{fmt.Sprintf("Subscribers with %s keep these to the end of their sessions.", counted(used, "block"))}
	return text, err
}

// addPool lets a drained outside prefix give blocks again.
func (c *Console) addPool(ctx context.Context, in changeInput, o changeOrder) (changeText, error) {
	res, err := c.calls.nat.AddPool(ctx, &pb.AddPoolRequest{
		Group: in.Get("group"), OutsidePrefix: in.Get("prefix"), Reason: o.Reason, RequestId: o.RequestID, ValidateOnly: o.ValidateOnly,
	})
	text, _, _ := poolText(in, res.GetPools())
	text.Title, text.Button = "Use "+in.Get("prefix")+" again", "Use this prefix again"
	text.Effect = effect(o, "%s would give blocks again.", "%s gives blocks again.", in.Get("prefix"))
	return text, err
}

// changePath returns the path of a change, with the fields that it is about.
func changePath(path string, fields ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i+1] != "" {
			q.Set(fields[i], fields[i+1])
		}
	}
	return Path + path + "?" + q.Encode()
}
