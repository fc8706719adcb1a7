// Package codec has the keys and the text forms of all data in Redis (docs/redis.md). It is
// pure: it does no I/O, reads no clock and writes no log. Its input may come from other
// versions or from operators: no input makes it panic, and unreadable parts are left out or
// refused with an error. Each form that is parsed has a fuzz target.
//
// Reading order:
//
//	keys.go          all keys, their types, and the kinds of unusable data
//	words.go         raw octets and times as words, and memory for the arguments of a command
//	record.go        a record: as a hash, as words in the feed, in the hash of online addresses
//	state.go         the state of a session, and the restart of a NAS, a line each
//	feed.go          entries of the feed, to changes
//	bindingvalue.go  a binding: its hash, its field, and its value, JSON
//	bindingreader.go a binding's value, parsed without encoding/json
//	natlog.go        a block in the log of a group's NAT, a line
//	nas.go           the data about a NAS, a line
//	group.go         a group's marker, and the configuration of its NAT, JSON
//	terms.go         the part of that which the kernel has
//	pools.go         changes of outside prefixes at run time, JSON
//	mapping.go       a static mapping: its field, and its value, JSON
package codec
