package lsn

import "github.com/sessiond/sessiond/internal/nat"

// legal reports whether a binding may go from one state to another.
func legal(from, to nat.State) bool {
	switch to {
	case nat.Active:
		return from == nat.Draining
	case nat.Draining:
		return from == nat.Active
	case nat.Cut:
		return from == nat.Active || from == nat.Draining
	case nat.Held:
		return from == nat.Cut
	}
	return false
}
