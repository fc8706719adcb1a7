package nat

// Pin says of which block the new sessions of one inside port get their outside port, where
// that is not the range of all new sessions: the block in which the port's sessions are, so
// that it keeps its mapping (RFC 4787 REQ-1).
type Pin struct {
	Protocol uint8 // TCP or UDP, by its IP number
	Port     Port  // the inside port
	Block    Block
}
