package main

import (
	"os"
	"runtime"
)

// limitProcessors has Go's code run on half of the processors that Go would use, and
// leaves the others to Redis and the kernel, which do the other half of the work. On
// all of them the parts of the daemon mostly wake each other up: each request passes
// through several goroutines, and to hand it over to another processor costs more
// than the goroutine does with it. An operator who sets GOMAXPROCS decides.
func limitProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}
