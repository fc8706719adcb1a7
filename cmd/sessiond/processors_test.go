package main

import (
	"runtime"
	"testing"
)

func TestLimitProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for _, tt := range []struct {
		asked       string
		usual, want int
	}{
		{"", 1, 1}, {"", 2, 1}, {"", 3, 1}, {"", 4, 2}, {"", 64, 32},
		{"4", 4, 4},
	} {
		t.Setenv("GOMAXPROCS", tt.asked)
		runtime.GOMAXPROCS(tt.usual)
		if limitProcessors(); runtime.GOMAXPROCS(0) != tt.want {
			t.Errorf("GOMAXPROCS=%s: %d of %d processors, want %d", tt.asked, runtime.GOMAXPROCS(0), tt.usual, tt.want)
		}
	}
}
