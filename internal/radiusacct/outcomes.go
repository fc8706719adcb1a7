package radiusacct

// An Outcome is a pair of labels that [Observer.Request] is called with.
type Outcome struct {
	Kind   string // one of the Type constants
	Result string // one of the Result constants
}

// Outcomes returns what can become of the requests of a client: no other pair is
// ever counted. A counter that is there at 0 misses no first event.
func Outcomes() []Outcome {
	var all []Outcome
	add := func(kinds []string, results ...string) {
		for _, kind := range kinds {
			for _, result := range results {
				all = append(all, Outcome{kind, result})
			}
		}
	}
	session := []string{TypeStart, TypeInterim, TypeStop, TypeAccountingOn, TypeAccountingOff}
	add(session, ResultOK, ResultStoreFailed)
	add(append(session, TypeOther), ResultNoRecord, ResultDuplicate, ResultInProgress, ResultMalformed, ResultDropped)
	add([]string{TypeStatusServer},
		ResultOK, ResultMalformed, ResultBadAuthenticator, ResultUnknownType, ResultDropped, ResultStoreFailed)
	add([]string{TypeUnread}, ResultMalformed, ResultBadAuthenticator, ResultUnknownType, ResultDropped)
	return all
}

// StrangerOutcomes returns what can become of datagrams of nobody's.
func StrangerOutcomes() []Outcome { return []Outcome{{TypeUnread, ResultUnknownClient}} }
