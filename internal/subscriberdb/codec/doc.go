// Package codec has the keys and the text forms of all data in Redis (docs/redis.md). It is
// pure: it does no I/O, reads no clock and writes no log. Its input may come from other
// versions or from operators: no input makes it panic, and unreadable parts are left out or
// refused with an error. Each form that is parsed has a fuzz target.
//
// Reading order:
//
//	keys.go          all keys
//	keytypes.go      the types of the keys that sessiond recreates
//	sessionref.go    a session, or a NAS, as one word of a key or a value
//	escape.go        raw octets as one word
//	timetext.go      times
//	recordhash.go    a record: as a hash, and as words in the feed
//	statetext.go     the state of a session, a line
//	restarttext.go   the restart of a NAS, a line
//	onlineentry.go   a value of the hash of online addresses
//	feedentry.go     entries of the feed, to changes
//	feedlines.go     entries with many records, a line each
//	bindingplace.go  a binding's hash and field
//	bindingvalue.go  a binding's value, JSON
//	bindingreader.go a binding's value, parsed without encoding/json
//	jsonoctets.go    raw octets in JSON
//	nastext.go       the data about a NAS, a line
//	marker.go        the proof that a group's data are complete, JSON
//	served.go        the configuration of a group's NAT, JSON
//	garbage.go       kinds of unusable data
//	argbuffer.go     reusable memory for the arguments of a command
package codec
