#!/bin/bash
# Runs every fuzz target for the given time each (default 30s). go test fuzzes
# one target at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/go/bin
time=${1:-30s}
grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' internal cmd |
	while IFS=: read -r file target; do
		target=${target#func }
		echo "== $(dirname "$file") $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "./$(dirname "$file")" </dev/null
	done
