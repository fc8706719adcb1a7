package inspect

import (
	"strings"
	"testing"
)

func TestStation(t *testing.T) {
	for _, c := range []struct {
		asked, has string
		want       bool
	}{
		{"02-00-5E-00-00-07", "02:00:5e:00:00:07", true},
		{"0200.5e00.0007", "02-00-5E-00-00-07", true},
		{"02005e000007", "02-00-5E-00-00-07:HomeNet", true}, // RFC 3580 section 3.21
		{"02005E000007", "0200.5E00.0007", true},
		{"02 00 5e 00 00 07", "02005e000007", true},
		{"02-00-5E-00-00-08", "02:00:5e:00:00:07", false},
		{"02-00-5E-00-00", "02:00:5e:00:00:07", false},
		{"02-00-5E-00-00-07", "02005e0000071", false}, // a longer number
		{"02-00-5E-00-00-07", "", false},
		{"02-00-5E-00-00-07:HomeNet", "02-00-5E-00-00-07", false}, // asked for exactly
		{"02-00-5E-00-00-07:HomeNet", "02-00-5E-00-00-07:HomeNet", true},
		{"+492111234", "+492111234", true},
		{"+492111234", "+4921112345", false},
		{"492111234567", "492111234567", true},
		{"", "anything", true},
	} {
		if got := NewStation(c.asked).Matches(c.has); got != c.want {
			t.Errorf("%q matches %q: %t", c.asked, c.has, got)
		}
	}
}

// FuzzStation: every text is found by itself, and a MAC address by each of its notations.
func FuzzStation(f *testing.F) {
	for _, text := range []string{"02-00-5E-00-00-07", "0200.5e00.0007:x", "-", "02--005e000007", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !NewStation(text).Matches(text) {
			t.Errorf("%q does not match itself", text)
		}
		mac, rest := cutMAC(text)
		if mac == "" {
			return
		}
		if len(mac) != macDigits || strings.Trim(mac, "0123456789abcdef") != "" || !strings.HasSuffix(text, rest) {
			t.Fatalf("%q is read as %q, with %q left", text, mac, rest)
		}
		if !NewStation(mac[:4] + "." + mac[4:8] + "." + mac[8:]).Matches(text) {
			t.Errorf("%q is not found by %s", text, mac)
		}
	})
}
