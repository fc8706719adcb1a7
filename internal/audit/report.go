package audit

import "time"

// Place is the place of an entry among those of all trails: newest first by the identifiers
// in Redis, and of one identifier by trail.
type Place struct {
	ID    string // of the stream
	Trail string
}

// Stored is an entry as it is in Redis.
type Stored struct {
	Place
	Text, Hash string
}

// Page is a part of the entries of all trails.
type Page struct {
	Entries []Entry  // newest first
	Next    Place    // to continue after; zero at the end
	Unread  []Unread // trails whose entries are missing, by name
}

// Unread is a trail that cannot be read.
type Unread struct {
	Trail string // "" for those of groups that are not in force: their names cannot be read
	Err   error
}

// End is the end of a trail in Redis.
type End struct {
	ID      string // of the newest entry; "" for none
	Number  uint64 // of the newest entry that was written, 0 for none
	Removed uint64 // number of the last entry that retention removed, 0 for none
}

// Verified is the result of the check of one trail.
type Verified struct {
	Trail   string // "" for the names of the trails of groups that are not in force
	First   uint64 // number of the first entry that is kept, 0 for none
	Last    Head   // the last entry; keep its hash elsewhere to notice an exchanged trail
	Entries int    // that were checked
	Flaw    *Flaw  // the first; nil for none
	Unread  string // why the trail could not be read, and nothing else is known; "" if it could
}

// Request is a caller's call with a request_id.
type Request struct {
	Actor, ID string
	Digest    string    // of the method and the request
	Began     time.Time // its first attempt, as BeginRequest returned it
}

// Remembered is the knowledge about a request.
type Remembered struct {
	Other  bool   // the caller used the ID for another request
	Again  bool   // an attempt has begun, and has no outcome
	Answer []byte // its outcome, nil for none

	Began time.Time // the first attempt, which may be this one; zero if Other
}
