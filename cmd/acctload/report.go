package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/acctload"
)

// A report is a result for people and scripts. Its JSON names are stable.
type report struct {
	Server          string             `json:"server"`
	Scenario        acctload.Scenario  `json:"scenario"`
	Concurrency     int                `json:"concurrency,omitempty"`
	OfferedRate     float64            `json:"offered_rate,omitempty"` // requests per second
	Seconds         float64            `json:"seconds"`                // of the measurement
	Rate            float64            `json:"rate"`                   // replies per second
	Requests        uint64             `json:"requests"`
	Answered        uint64             `json:"answered"`
	Lost            uint64             `json:"lost"`
	Unsent          uint64             `json:"unsent"`
	Retransmissions uint64             `json:"retransmissions"`
	Late            uint64             `json:"late"`
	Refused         uint64             `json:"refused"`
	Replies         uint64             `json:"replies"` // during the measurement
	Bad             bad                `json:"bad"`
	Latency         latency            `json:"latency_ms"`
	Kinds           map[string]latency `json:"kinds"`
}

type bad struct {
	Total         uint64 `json:"total"`
	Malformed     uint64 `json:"malformed"`
	Code          uint64 `json:"code"`
	Authenticator uint64 `json:"authenticator"`
}

// latency is in milliseconds.
type latency struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

func newReport(c *command, r *acctload.Result) *report {
	out := &report{
		Server:          c.options.Server.String(),
		Scenario:        c.options.Scenario,
		Concurrency:     c.options.Concurrency,
		OfferedRate:     c.options.Rate,
		Seconds:         r.Duration.Seconds(),
		Rate:            r.Rate,
		Requests:        r.Requests,
		Answered:        r.Answered,
		Lost:            r.Lost,
		Unsent:          r.Unsent,
		Retransmissions: r.Retransmissions,
		Late:            r.Late,
		Refused:         r.Refused,
		Replies:         r.Replies,
		Bad: bad{
			Total: r.Bad.Total(), Malformed: r.Bad.Malformed,
			Code: r.Bad.Code, Authenticator: r.Bad.Authenticator,
		},
		Latency: newLatency(&r.Latency),
		Kinds:   make(map[string]latency),
	}
	for kind, h := range r.Kinds {
		out.Kinds[kind.String()] = newLatency(h)
	}
	return out
}

func newLatency(h *acctload.Histogram) latency {
	quantile := func(q float64) float64 { return milliseconds(h.Quantile(q)) }
	return latency{
		Count: h.Count(), P50: quantile(0.5), P90: quantile(0.9), P99: quantile(0.99), P999: quantile(0.999),
		Max: milliseconds(h.Max()),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Round(time.Microsecond)) / 1e6 }

func (r *report) print(w io.Writer, format string) error {
	if format == outputJSON {
		return json.NewEncoder(w).Encode(r)
	}
	_, err := io.WriteString(w, r.text())
	return err
}

func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s for %.1f s, %s\n\n", r.Scenario, r.Server, r.Seconds, r.loop())
	fmt.Fprintf(&b, "rate             %.0f replies/s\n", r.Rate)
	fmt.Fprintf(&b, "requests         %d sent, %d answered, %d lost, %d unsent\n", r.Requests, r.Answered, r.Lost, r.Unsent)
	fmt.Fprintf(&b, "retransmissions  %d\n", r.Retransmissions)
	fmt.Fprintf(&b, "bad replies      %d (%d malformed, %d of another code, %d with a wrong authenticator)\n",
		r.Bad.Total, r.Bad.Malformed, r.Bad.Code, r.Bad.Authenticator)
	fmt.Fprintf(&b, "late replies     %d\n", r.Late)
	if r.Refused > 0 {
		fmt.Fprintf(&b, "port closed      %d times\n", r.Refused)
	}
	fmt.Fprintf(&b, "\n%-14s %10s %9s %9s %9s %9s %9s\n", "latency in ms", "count", "p50", "p90", "p99", "p99.9", "max")
	for _, kind := range []acctload.Kind{
		acctload.KindAccountingOn, acctload.KindStart, acctload.KindInterim, acctload.KindStop,
	} {
		if l, ok := r.Kinds[kind.String()]; ok && len(r.Kinds) > 1 {
			l.row(&b, kind.String())
		}
	}
	r.Latency.row(&b, "all")
	return b.String()
}

func (r *report) loop() string {
	if r.Concurrency > 0 {
		return fmt.Sprintf("closed loop, %d outstanding", r.Concurrency)
	}
	return fmt.Sprintf("open loop, %.0f requests/s", r.OfferedRate)
}

func (l latency) row(w io.Writer, name string) {
	fmt.Fprintf(w, "%-14s %10d %9.3f %9.3f %9.3f %9.3f %9.3f\n", name, l.Count, l.P50, l.P90, l.P99, l.P999, l.Max)
}
