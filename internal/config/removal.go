package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// removalOn is the mode in which the end of a record removes sessions.
const removalOn = "on"

// removalMode reads the toggle. It also accepts true and false, its values
// before "observe" was added.
func (v value) removalMode(to *string) {
	s, ok := v.scalar()
	switch {
	case !ok:
	case s == "true":
		*to = removalOn
	case s == "false":
		*to = "off"
	default:
		v.oneOf(to, removalOn, "off", "observe")
	}
}

// causes are the Acct-Terminate-Causes of RFC 2866 section 5.10.
var causes = map[string]uint32{
	"User-Request": 1, "Lost-Carrier": 2, "Lost-Service": 3, "Idle-Timeout": 4, "Session-Timeout": 5,
	"Admin-Reset": 6, "Admin-Reboot": 7, "Port-Error": 8, "NAS-Error": 9, "NAS-Request": 10,
	"NAS-Reboot": 11, "Port-Unneeded": 12, "Port-Preempted": 13, "Port-Suspended": 14,
	"Service-Unavailable": 15, "Callback": 16, "User-Error": 17, "Host-Request": 18,
}

// lostLine returns the causes of sessions that neither side ended on purpose.
func lostLine() []uint32 {
	return []uint32{
		causes["Lost-Carrier"], causes["Lost-Service"], causes["Port-Error"], causes["NAS-Error"], causes["NAS-Reboot"],
	}
}

func (v value) removal(to *Removal) {
	v.mapping(fields{
		"grace":        func(v value) { v.duration(&to.Grace, 0) },
		"grace_causes": func(v value) { to.GraceCauses = v.causes() },
	})
}

// causes reads a list of Acct-Terminate-Causes, each a name or a number.
func (v value) causes() []uint32 {
	var list []uint32
	for _, e := range v.sequence() {
		cause, ok := e.cause()
		if ok && slices.Contains(list, cause) {
			e.errorf("Acct-Terminate-Cause %d is there twice", cause)
		}
		if ok {
			list = append(list, cause)
		}
	}
	return list
}

func (v value) cause() (uint32, bool) {
	s, ok := v.scalar()
	if !ok {
		return 0, false
	}
	for name, n := range causes {
		if strings.EqualFold(name, s) {
			return n, true
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		v.errorf("%q is not an Acct-Terminate-Cause; write its number or one of: %s",
			s, strings.Join(slices.Sorted(maps.Keys(causes)), ", "))
		return 0, false
	}
	return uint32(n), true
}
