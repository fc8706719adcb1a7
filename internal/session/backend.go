package session

// A Backend answers what callers of gRPC ask of a Manager, and carries out what they order:
// lists, single views, deletions, settings, decisions about held removals. It has the methods
// that package control needs, which tell the errors; all may be called concurrently.
type Backend struct{ m *Manager }

// Backend returns the Manager's Backend.
func (m *Manager) Backend() *Backend { return &Backend{m} }
