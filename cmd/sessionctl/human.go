package main

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sessiond/sessiond/internal/measure"
)

// none marks an absent value in tables.
const none = "-"

// span writes a duration with its two largest units: "45s", "2h4m", "3d7h".
func span(d time.Duration) string { return measure.Span(d) }

// octets writes octets in units of 1024: "512 B", "1.2 GiB".
func octets(n uint64) string { return measure.Octets(n) }

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

// here is the present time in the zone of tables, in which a person writes times too.
func (p *printer) here() time.Time { return p.now().In(p.zone) }

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
