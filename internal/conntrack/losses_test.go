package conntrack

import "testing"

// TestLossesAreCountedOnce: conntrack has one packet in two of its counters.
func TestLossesAreCountedOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		of   processorLosses
		want Losses
	}{
		"nothing":               {processorLosses{}, Losses{}},
		"a taken tuple":         {processorLosses{insertFailed: 3, drop: 3}, Losses{Refused: 3}},
		"a full table":          {processorLosses{drop: 4}, Losses{Full: 4}},
		"both":                  {processorLosses{insertFailed: 3, drop: 7}, Losses{Refused: 3, Full: 4}},
		"a chain too long":      {processorLosses{insertFailed: 2, tooLong: 2}, Losses{Refused: 2}},
		"read while it counted": {processorLosses{insertFailed: 5, drop: 4}, Losses{Refused: 5}},
	} {
		if got := tt.of.losses(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}
