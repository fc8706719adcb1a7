package control

// Observer counts connections and streams. Its methods may be called
// concurrently. Method arguments are short names such as "WatchSubscribers".
type Observer interface {
	ConnectionOpened()
	// ConnectionClosed: cause is one of ConnectionCauses.
	ConnectionClosed(cause string)
	// ConnectionRefused: cause is one of RefusalCauses.
	ConnectionRefused(cause string)
	StreamOpened(method string)
	// StreamEnded: end is one of StreamEnds.
	StreamEnded(method, end string)
	// StreamRefused: cause is one of RefusalCauses.
	StreamRefused(method, cause string)
}

// unobserved is the Observer of servers without one.
type unobserved struct{}

func (unobserved) ConnectionOpened()            {}
func (unobserved) ConnectionClosed(string)      {}
func (unobserved) ConnectionRefused(string)     {}
func (unobserved) StreamOpened(string)          {}
func (unobserved) StreamEnded(string, string)   {}
func (unobserved) StreamRefused(string, string) {}
