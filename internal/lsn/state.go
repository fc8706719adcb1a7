package lsn

import "fmt"

var stateNames = [...]string{Active: "active", Draining: "draining", Cut: "cut", Held: "held"}

// String returns the state's lower-case name.
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Live reports whether a binding of this state may have traces in the kernel.
func (s State) Live() bool { return s == Active || s == Draining || s == Cut }

// legal reports whether a binding's life leads from one state to another.
func legal(from, to State) bool {
	switch to {
	case Active:
		return from == Draining
	case Draining:
		return from == Active
	case Cut:
		return from == Active || from == Draining
	case Held:
		return from == Cut
	}
	return false
}
