package nftnat

// IndexStats count, since the start, what happened to the index of sessions.
type IndexStats struct {
	Overruns uint64 // times the kernel dropped events for want of buffer
	Missed   uint64 // entries that an audit found and that no event had told
	Stale    uint64 // entries that an audit found to have ended without an event
	Passes   uint64 // walks through the whole table, because the index could not prove
}
