package subscriber

// DecidePut decides the effect of a record put by hand on the record at its
// address. The same subscriber keeps its session and its counters; another
// subscriber loses the address.
func DecidePut(holder *Record, r Record) Decision {
	if holder == nil {
		return Decision{Verdict: Opened, Put: &r, Created: true}
	}
	if holder.SameSubscriber(&r) || holder.anonymous() {
		kept := inherit(holder, r)
		return Decision{Verdict: Refreshed, Put: &kept}
	}
	end := NewEnding(*holder, ReasonSuperseded, r.StartedAt)
	return Decision{Verdict: TookOver, Delete: []Ending{end}, Put: &r, Created: true}
}

// inherit fills the empty fields of the new record from the present one.
func inherit(holder *Record, r Record) Record {
	if r.SessionID == (SessionID{}) {
		r.SessionID, r.MultiSessionID, r.Links = holder.SessionID, holder.MultiSessionID, holder.Links
	}
	r.UserName = firstOf(r.UserName, holder.UserName)
	r.CallingStationID = firstOf(r.CallingStationID, holder.CallingStationID)
	if r.Class == "" {
		r.Classes = holder.Classes
	}
	if !r.NASAddress.IsValid() {
		r.NASAddress = holder.NASAddress
	}
	if !holder.StartedAt.IsZero() {
		r.StartedAt = holder.StartedAt
	}
	r.InputOctets = max(r.InputOctets, holder.InputOctets)
	r.OutputOctets = max(r.OutputOctets, holder.OutputOctets)
	return r
}
