package control

// Observer counts connections and streams, and is told about files. Its methods may be
// called concurrently. Method arguments are short names such as "WatchSubscribers".
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
	// FilesUsable: kind is "certificate", "client_ca" or "tokens". usable is false while files
	// of the kind have contents that cannot be used, and earlier ones are in force. It is
	// called at the start, and when that changes.
	FilesUsable(kind string, usable bool)
}

// unobserved is the Observer of servers without one.
type unobserved struct{}

func (unobserved) ConnectionOpened()            {}
func (unobserved) ConnectionClosed(string)      {}
func (unobserved) ConnectionRefused(string)     {}
func (unobserved) StreamOpened(string)          {}
func (unobserved) StreamEnded(string, string)   {}
func (unobserved) StreamRefused(string, string) {}
func (unobserved) FilesUsable(string, bool)     {}
