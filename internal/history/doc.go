// Package history is the local store of who held which public port when. It consumes the NAT logs
// of groups (nat.Event), and answers for any time that the retention kept. No goroutine is its
// own: callers append, ask, and call Maintain.
//
// Each group has a log of its own: a sequence of files, the last of which is the running
// journal. A journal is append-only; one frame is one transaction, with entries and the position
// behind them, and is durable before Append returns. When a day is over (UTC), or the journal has
// Options.FileRecords records, a new one begins, and Maintain makes a day's file of the old one:
// sorted, compressed, with a Merkle tree and a signed checkpoint. A day's file also has what was
// held when it began, with its true beginning, so one file answers for its time.
//
// A record says Allocated <= t < Released. An answer has a name where it is certain, and else
// says that nobody had the port, or why that is unknown. Within a gap a holder is certain only if
// its record covers the gap from its beginning to its end, and no other record has the time.
//
// Times are those of the events, to the microsecond, and are never moved; but a record is at
// least a microsecond long. The block and the time of its allocation tell which allocation a
// release is of. Where two records of a port overlap, it is unknown who had it. An event that is
// over a second earlier than another before it, or over a minute earlier than the time to which the
// log was read, shows that the clock was set back, or that a change was told late: the times up to
// there are a gap. A clock that was set forward
// cannot be seen, and none that was set back and is where it was before the next event.
//
// An identity has a salt, and records have the hash of both. So an identity can be erased, and
// everything verifies as before. A day's file has salts of its own.
//
// Lock order: Store.housework, Store.mu, groupLog.writing, groupLog.mu, dayFile.mu.
//
// Reading order:
//
//	store.go      options, open and close, progress
//	batch.go      Append and Resume: what readers of a log give
//	log.go        one group: its files, events to entries, new files
//	entry.go      entries of a journal, and their chain of hashes
//	journal.go    frames of entries: written, read, cut off after a crash
//	span.go       a block's time with one holder; those of a journal in memory
//	identity.go   who held a block, with salt and hash
//	salt.go       the salts of a day's file
//	lookup.go     LookupOutside, ListHolders: who had a port, an address
//	timeline.go   ListRecords, Complete: what a user or inside address had
//	seal.go       Maintain: a journal becomes a day's file
//	daywriter.go  a day's file, written
//	day.go        a day's file, read
//	columns.go    the blocks of its tables
//	tree.go       the Merkle tree of its records
//	checkpoint.go signed notes, and the key
//	verify.go     Verify: the first record that is not as it was written
//	proof.go      Prove, VerifyProof: one record, without the store
//	erase.go      Erase: a user's identity
//	retention.go  files that are too old, or too many
//	backup.go     Backup: a copy while entries come
//	disk.go       the file system, as far as it is changed
package history
