// Package measure writes numbers, octets and durations as people read them, the same in
// sessionctl and in the console.
package measure

import (
	"fmt"
	"strconv"
	"time"
)

// Span writes a duration with its two largest units: "45s", "2h4m", "3d7h".
func Span(d time.Duration) string {
	d = d.Round(time.Second)
	if d < 0 {
		return "0s"
	}
	days, rest := d/(24*time.Hour), d%(24*time.Hour)
	hours, minutes, seconds := rest/time.Hour, rest%time.Hour/time.Minute, rest%time.Minute/time.Second
	switch {
	case days > 0:
		return pair(int64(days), "d", int64(hours), "h")
	case hours > 0:
		return pair(int64(hours), "h", int64(minutes), "m")
	case minutes > 0:
		return pair(int64(minutes), "m", int64(seconds), "s")
	}
	return strconv.FormatInt(int64(seconds), 10) + "s"
}

func pair(large int64, largeUnit string, small int64, smallUnit string) string {
	if small == 0 {
		return strconv.FormatInt(large, 10) + largeUnit
	}
	return fmt.Sprintf("%d%s%d%s", large, largeUnit, small, smallUnit)
}

// Octets writes octets in units of 1024: "512 B", "1.2 GiB".
func Octets(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit := float64(n)/1024, 0
	for value >= 1023.95 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// Count writes a number with a comma before every three digits: "1,234,567".
func Count(n int) string {
	text := strconv.Itoa(n)
	first := 0
	if n < 0 {
		first = 1
	}
	for i := len(text) - 3; i > first; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// Brief writes a duration below a minute with three digits: "0.8 ms", "12.4 ms", "3.10 s".
func Brief(d time.Duration) string {
	if ms := float64(d) / float64(time.Millisecond); ms < 999.5 {
		return threeDigits(ms) + " ms"
	}
	return threeDigits(d.Seconds()) + " s"
}

// Rate writes a number of things a second: "0", "0.25", "1,234".
func Rate(perSecond float64) string {
	if perSecond >= 99.95 {
		return Count(int(perSecond + 0.5))
	}
	return strconv.FormatFloat(perSecond, 'g', 3, 64)
}

func threeDigits(x float64) string {
	switch {
	case x >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}
