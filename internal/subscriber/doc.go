// Package subscriber is the domain: the record of one online subscriber, the
// accounting events that change it, and the pure rules that decide the effect
// of an event.
//
// Reading order:
//
//	record.go       the record, its key and its session
//	state.go        the memory of a session, and the view around one event
//	event.go        the event, and its verdicts
//	eventtime.go    the time of an event: by its own values, and by the learned clock of its NAS
//	rules.go        the tables: step by scope and relation, answer by owner of the address
//	decide.go       Decide, the steps, and the records and states that they write; records put by hand
//	relation.go     the relation of an event to the known session, by times and packets: the row of the table
//	addressowner.go which session holds the address
//	identify.go     whose session it is: shared identifiers, links of a multilink, services
//	change.go       entries of the change feed: kinds, reasons, identifiers
//	packed.go       records in a third of their memory
package subscriber
