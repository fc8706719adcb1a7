// Package codec has the keys and the text forms of everything that stands in Redis
// (docs/redis.md). It is pure: it does no I/O, reads no clock and writes no log. Its
// input may come from other versions, or from people: no input makes it panic, and unreadable
// parts are left out or refused with an error. Each form that is parsed has a fuzz target.
//
// Reading order:
//
//	keys.go          all keys
//	keytypes.go      the types of those that can be made anew
//	sessionref.go    a session, or a NAS, as one word of a key or a value
//	escape.go        raw octets as one word
//	timetext.go      times
//	recordhash.go    a record: as a hash, and as words in the feed
//	statetext.go     what is remembered of a session, a line
//	restarttext.go   the restart of a NAS, a line
//	onlineentry.go   a value of the hash of online addresses
//	feedentry.go     entries of the feed, to changes
//	feedlines.go     those that tell of many records, a line each
//	bindingplace.go  a binding's hash and field
//	bindingvalue.go  a binding's value, JSON
//	bindingreader.go the same, read by hand
//	jsonoctets.go    raw octets in JSON
//	nastext.go       what is known of a NAS, a line
//	marker.go        the proof that a group is whole, JSON
//	served.go        what a group's NAT is served as, JSON
//	garbage.go       kinds of what cannot be used
//	argbuffer.go     room for the arguments of a command
package codec
