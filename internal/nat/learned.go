package nat

// Learned says how the flows of TCP and UDP of a group's subscribers are mapped and filtered. The
// zero value leaves both to conntrack.
type Learned struct {
	EndpointIndependent bool // a mapped inside endpoint keeps its outside port (RFC 4787 REQ-1, RFC 5382 REQ-1)
	Open                bool // with it: everybody reaches the mapped endpoint (RFC 4787 REQ-8)
	Strict              bool // with it: no two inside endpoints share a port (RFC 4787 REQ-3)
}
