package main

import (
	"os"
	"runtime"
)

// limitProcessors limits Go code to half of the processors. The others are for
// Redis and the kernel, which do the other half of the work. With all
// processors, the parts of the daemon mostly wake each other up: each request
// passes through several goroutines, and a switch to another processor costs
// more than the goroutine's own work. With one of two processors a request
// takes 4.2 us, its sender included and without a Redis, with both 5.3 to 5.9
// (BenchmarkLoopback of radiusacct, -cpu 1,2). An operator's GOMAXPROCS takes
// precedence.
func limitProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}
