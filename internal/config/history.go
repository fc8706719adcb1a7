package config

import (
	"strconv"
	"strings"
	"time"
)

const (
	day = 24 * time.Hour
	// mostAge is a hundred years: more is a mistake of units.
	mostAge = 100 * 365 * day
)

// history reads the history of the NAT.
func (l *loader) history(v value) {
	c := &l.config.History
	v.mapping(fields{
		"path":             func(v value) { l.path(v, &c.Path) },
		"interim_interval": func(v value) { v.duration(&c.Interim, time.Minute) },
		"signing_key_file": func(v value) { l.path(v, &c.SigningKey) },
		"retention": func(v value) {
			v.mapping(fields{
				"age": func(v value) { readAge(v, &c.MaxAge) },
				"size": func(v value) {
					if s, ok := v.scalar(); ok && s != "" {
						readSize(v, &c.MaxOctets)
					}
				},
			})
		},
	})
}

// readAge reads a duration, in days too, such as 365d; 0s is for ever. Files have a day, so less
// means nothing.
func readAge(v value, to *time.Duration) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	var d time.Duration
	if digits, days := strings.CutSuffix(s, "d"); days {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			v.errorf("%q is no number of days; write such as 365d", s)
			return
		}
		d = time.Duration(n) * day
	} else if !v.duration(&d, 0) {
		return
	}
	if d != 0 && d < day {
		v.errorf("%v is too short; write at least 1d, or 0s for ever", d)
		return
	}
	if v.maximum(d, mostAge) {
		*to = d
	}
}
