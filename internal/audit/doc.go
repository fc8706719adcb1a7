// Package audit has the entries about changes that callers order, and the chain of hashes that
// shows whether an entry was changed, dropped or moved. It is pure: package
// subscriberdb/trail stores the entries, each in the same step as its change.
//
// Reading order:
//
//	order.go  who orders a change, carried by a context
//	entry.go  an entry, and filters of entries
//	chain.go  entries sealed one behind the other, and the check of such a chain
//	report.go answers about trails and requests
package audit
