package codec

import "time"

// FormatTime returns a time in UTC in the form of RFC 3339, to the nanosecond; "" for the
// zero time.
func FormatTime(t time.Time) string { return string(appendTime(nil, t)) }

func appendTime(text []byte, t time.Time) []byte {
	if t.IsZero() {
		return text
	}
	return t.UTC().AppendFormat(text, time.RFC3339Nano)
}

func appendTimeOrDash(text []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(text, '-')
	}
	return appendTime(text, t)
}

// TimeArg returns a time in UTC as the argument of a command: the Redis client formats it
// in the form of FormatTime.
func TimeArg(t *time.Time) any {
	if t.IsZero() {
		return ""
	}
	return t
}

// parseTime parses a time; zero for any other text, and for a time that FormatTime could
// not write: in UTC the year has four digits.
func parseTime(s string) time.Time {
	if s == "" || s == "-" {
		return time.Time{} // the error of time.Parse would cost an allocation
	}
	if t, ok := readStamp(s); ok {
		return t
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	if t = t.UTC(); t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// readStamp parses a time in the form of appendTime, and reports whether it is one.
func readStamp(s string) (time.Time, bool) {
	const form = "0000-00-00T00:00:00"
	if len(s) <= len(form) || s[len(s)-1] != 'Z' {
		return time.Time{}, false
	}
	for i := range form {
		if digit := '0' <= s[i] && s[i] <= '9'; digit != (form[i] == '0') || !digit && s[i] != form[i] {
			return time.Time{}, false
		}
	}
	two := func(i int) int { return int(s[i]-'0')*10 + int(s[i+1]-'0') }
	nanos, ok := readFraction(s[len(form) : len(s)-1])
	year, month, day, hour, minute, second := two(0)*100+two(2), two(5), two(8), two(11), two(14), two(17)
	if !ok || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	return t, t.Day() == day // false if the month has no such day
}

// readFraction parses the nanoseconds, "" for none.
func readFraction(s string) (int, bool) {
	if s == "" {
		return 0, true
	}
	if len(s) == 1 || len(s) > 10 || s[0] != '.' {
		return 0, false
	}
	nanos := 0
	for i := 1; i < 10; i++ {
		nanos *= 10
		if i < len(s) {
			if s[i] < '0' || s[i] > '9' {
				return 0, false
			}
			nanos += int(s[i] - '0')
		}
	}
	return nanos, true
}
