// Package control serves the gRPC API with which a NOC monitors and controls
// sessiond.
//
// A connection comes through a door, which bounds connections and streams. A call passes an
// interceptor, which checks the caller's rights, as package access decides, turns errors into
// statuses, and logs. The
// service reads the request, calls its backend, and converts the result. The backends are
// interfaces of this package: package session and cmd/sessiond implement them.
//
// Reading order:
//
//	server.go      the Server: its Options, listeners, services, health and end
//	backends.go    the interfaces behind the services
//
// Services, a file each:
//
//	subscribers.go SubscriberService: records by key, lists, changes
//	watch.go       its watch: events, gaps, progress; watchlist.go: those online, between the events
//	nat.go         NatService: bindings and pools
//	sessions.go    SessionService: conntrack entries
//	controls.go    ControlService: settings, status, reconcile
//	removals.go    RemovalService: removals that wait, and observed ones
//	nases.go       NasService: BNGs
//	mappings.go    MappingService: mappings that outlive their sessions
//	desk.go        DeskService: explanations, ends of sessions, the busiest subscribers
//	audits.go      AuditService: who changed something
//	history.go     HistoryService, and lookups in the past; historyexport.go: lawful requests
//
// Messages:
//
//	convert.go     from domain to message and back
//	fields.go      single fields: addresses, ports, times; text.go: raw octets as text
//	mask.go        field masks of changes
//	page.go        sizes of pages, page tokens, and orders; resume.go: resume tokens
//	errors.go      errors to status codes, with the field or resource that they are about
//	codec.go       encoding: requests that cannot be decoded, events that watchers share
//
// Callers, and their limits:
//
//	intercept.go   around each call: rights, limits, errors, log
//	within.go      calls from within the program: the console's
//	orders.go      calls that change something: their order for the audit, and repeated requests
//	rights.go      who may do what; peer.go: who calls
//	limits.go      the Limits of a caller
//	stream.go      streams: their ends, and readers that take nothing
//	door.go        connections; debt.go: those whose peer takes no replies
//	listen.go      sockets, and the lock of a unix socket
//	tls.go         certificates; watchfiles.go: files that change, of these and of tokens
//	observer.go    the counts of connections and streams
package control
