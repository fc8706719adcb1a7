package access

import "fmt"

// Role is the rights of a caller. A greater role has all rights of the lesser
// ones.
type Role uint8

// The roles.
const (
	None     Role = iota // may ask for the daemon's health
	Viewer               // may read everything
	Operator             // may end and begin subscribers, sessions, mappings and removals, and reconcile
	Admin                // may change settings and pools: everything
)

var roleNames = [...]string{None: "none", Viewer: "viewer", Operator: "operator", Admin: "admin"}

// String returns the role's name in the configuration.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// ParseRole is the reverse of String.
func ParseRole(name string) (Role, error) {
	for r, n := range roleNames {
		if n == name {
			return Role(r), nil
		}
	}
	return None, fmt.Errorf("access: role %q is not known; write one of none, viewer, operator, admin", name)
}
