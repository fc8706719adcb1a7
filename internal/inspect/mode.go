package inspect

import "fmt"

// RemovalMode is the effect of the end of a record on the subscriber's
// sessions.
type RemovalMode uint8

// The modes; the zero value is the harmless one.
const (
	RemovalOff     RemovalMode = iota // they go on until they idle out; no new one begins
	RemovalOn                         // they are removed at once
	RemovalObserve                    // as RemovalOff, and the removals of RemovalOn are counted and listed
)

var modeNames = [...]string{RemovalOff: "off", RemovalOn: "on", RemovalObserve: "observe"}

// String returns the mode's name in the configuration, in the database and on
// the command line.
func (m RemovalMode) String() string {
	if int(m) >= len(modeNames) {
		return fmt.Sprintf("RemovalMode(%d)", uint8(m))
	}
	return modeNames[m]
}

// ParseRemovalMode is the reverse of RemovalMode.String. It also accepts the
// values of a Boolean toggle.
func ParseRemovalMode(s string) (RemovalMode, error) {
	switch s {
	case "on", "true", "1":
		return RemovalOn, nil
	case "off", "false", "0":
		return RemovalOff, nil
	case "observe":
		return RemovalObserve, nil
	}
	return RemovalOff, fmt.Errorf("%q is none of on, off and observe", s)
}
