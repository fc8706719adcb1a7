package subscriber

import "slices"

// A multilink is one record with several accounting sessions, its links, which
// share an Acct-Multi-Session-Id and the address (SES-20). The record ends with
// the last of them.

// maxLinks bounds the links and services of one record, because each event of
// any of them repeats all in the change feed. Those beyond the bound find their
// record, and do not keep it.
const maxLinks = 32

// belongsTo reports whether the record is the session's.
func (r *Record) belongsTo(id SessionID) bool {
	if len(r.Links) == 0 {
		return r.SessionID == id
	}
	return r.NASOnly() == id.NASOnly() && slices.Contains(r.Links, id.AcctSessionID)
}

// joins reports whether the event is of another link of the record's multilink.
func (ev *Event) joins(r *Record) bool {
	return ev.MultiSessionID != "" && ev.MultiSessionID == r.MultiSessionID && ev.NASOnly() == r.NASOnly()
}

// link enters the event's session into its multilink, if it is one.
func (r *Record) link(ev *Event) {
	if ev.Service || ev.MultiSessionID == "" || r.MultiSessionID != "" && r.MultiSessionID != ev.MultiSessionID {
		return
	}
	r.MultiSessionID = ev.MultiSessionID
	r.addLink(ev.AcctSessionID)
}

func (r *Record) addLink(id string) {
	if len(r.Links) < maxLinks && !slices.Contains(r.Links, id) {
		r.Links = append(slices.Clone(r.Links), id)
	}
}

// without is the record after one of several links has ended.
func (r Record) without(link string) Record {
	r.Links = slices.DeleteFunc(slices.Clone(r.Links), func(l string) bool { return l == link })
	return r
}
