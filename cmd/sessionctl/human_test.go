package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

func TestTypedPrefix(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"": "", "1": "", "100.": "100.0.0.0/8", "100.64.3": "100.64.0.0/16", "100.64.3.": "100.64.3.0/24",
		"100.64.3.7": "100.64.3.0/24", "1.2.3.4.5": "", "x.": "", "300.": "",
	} {
		if got := typedPrefix(typed); got != want {
			t.Errorf("typedPrefix(%q) = %q, want %q", typed, got, want)
		}
	}
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]pb.Protocol{"": 0, "tcp": 6, "UDP": 17, "icmp": 1, "47": 47} {
		got, err := protocol(text)
		if got != want || err != nil {
			t.Errorf("protocol(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"unspecified", "0", "256", "-1", "x"} {
		if _, err := protocol(text); err == nil {
			t.Errorf("protocol %q was taken", text)
		}
	}
	if protocolName(17) != "udp" || protocolName(47) != "47" {
		t.Error("protocol names are wrong")
	}
}

// TestTableStreams: a table does not keep endless output in memory, and stays
// aligned when a wider row comes late.
func TestTableStreams(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	table := newTable(&printed{to: &out}, []string{"A", "B"})
	for range sample {
		if err := table.add([]string{"é", "x"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "\n"); n < sample {
		t.Errorf("%d lines were printed", n)
	}
	out.Reset()
	if err := table.add([]string{"wide", "x"}); err != nil || out.String() != "wide  x\n" && table.flush() != nil {
		t.Errorf("a late row: %q, %v", out.String(), err)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	for offset, want := range map[time.Duration]string{
		0: "ok", 5 * time.Second: "ok", -5 * time.Second: "ok", 6 * time.Second: "6s ahead", -8 * time.Hour: "8h behind",
		3*time.Minute + 10*time.Second: "3m10s ahead", -20_513 * 24 * time.Hour: "20513d behind",
	} {
		n := &pb.Nas{ClockOffset: durationpb.New(offset)}
		if got := clockText(n); got != want {
			t.Errorf("clockText(%v) = %q, want %q", offset, got, want)
		}
		n.ClockUnheeded = true
		if got := clockText(n); got != want+", unheeded" {
			t.Errorf("clockText(%v, unheeded) = %q", offset, got)
		}
	}
	if got := clockText(&pb.Nas{}); got != none {
		t.Errorf("an unknown clock is %q", got)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for want, counts := range map[string]map[string]uint64{
		none: nil, "3 held": {"held": 3}, "12 stale, 3 ended, 3 held": {"held": 3, "stale": 12, "ended": 3},
	} {
		if got := refused(&pb.Nas{Refused: counts}); got != want {
			t.Errorf("refused(%v) = %q, want %q", counts, got, want)
		}
	}
}
