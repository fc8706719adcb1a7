// Package inspect holds the NOC's view of a running sessiond and its requests:
// views that join a subscriber's record with its binding, filters, events,
// settings, status and drift. It is pure; the life cycle fills these types and
// the gRPC services show them.
package inspect
