package radiusacct

// An Outcome is a pair of labels of [Observer.Request].
type Outcome struct {
	Kind   string // one of the Type constants
	Result string // one of the Result constants
}

// Outcomes returns all possible pairs for the requests of a client; no other pair is ever
// counted. A counter that exists from the start, with 0, shows its first event as an
// increase.
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

// StrangerOutcomes returns all possible pairs for datagrams from unknown sources.
func StrangerOutcomes() []Outcome { return []Outcome{{TypeUnread, ResultUnknownClient}} }
