package control

// Observer is told of connections and streams, to count them. Its methods may be
// called concurrently. Methods are short names such as "WatchSubscribers".
type Observer interface {
	ConnectionOpened()
	// ConnectionClosed is told of one of ConnectionCauses.
	ConnectionClosed(cause string)
	// ConnectionRefused is told of one of RefusalCauses.
	ConnectionRefused(cause string)
	StreamOpened(method string)
	// StreamEnded is told of one of StreamEnds.
	StreamEnded(method, end string)
	// StreamRefused is told of one of RefusalCauses.
	StreamRefused(method, cause string)
}

// unobserved is for servers that nobody observes.
type unobserved struct{}

func (unobserved) ConnectionOpened()            {}
func (unobserved) ConnectionClosed(string)      {}
func (unobserved) ConnectionRefused(string)     {}
func (unobserved) StreamOpened(string)          {}
func (unobserved) StreamEnded(string, string)   {}
func (unobserved) StreamRefused(string, string) {}
