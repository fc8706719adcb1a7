package main

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// none marks an absent value in tables.
const none = "-"

// span writes a duration with its two largest units: "45s", "2h4m", "3d7h".
func span(d time.Duration) string {
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

// octets writes octets in units of 1024: "512 B", "1.2 GiB".
func octets(n uint64) string {
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

// age writes the time since t; none for an absent one.
func (p *printer) age(t *timestamppb.Timestamp) string {
	if t == nil {
		return none
	}
	return span(p.now().Sub(t.AsTime()))
}

// until writes the time until t; none for an absent one.
func (p *printer) until(t *timestamppb.Timestamp) string {
	if t == nil {
		return none
	}
	return span(t.AsTime().Sub(p.now()))
}

// moment writes a time in full, with the time since or until it.
func (p *printer) moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return none
	}
	text := t.AsTime().In(p.zone).Format(time.RFC3339)
	if distance := p.now().Sub(t.AsTime()); distance >= 0 {
		return text + " (" + span(distance) + " ago)"
	}
	return text + " (in " + p.until(t) + ")"
}

// stamp writes a time in local time, or in UTC with a Z.
func (p *printer) stamp(t time.Time) string {
	text := t.In(p.zone).Format(time.DateTime)
	if p.zone == time.UTC {
		text += "Z"
	}
	return text
}

func or(text, absent string) string {
	if text == "" {
		return absent
	}
	return text
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
