#!/bin/bash
# Runs the benchmarks and prints, under each part, how sessiond stands to the
# peer or the limit it is measured against: both from this one run, as a ratio.
# Usage: scripts/bench.sh [package ...], each a directory below internal/, or
# "radius" for accounting as a whole against FreeRADIUS.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin

# part package benchmarks benchtime
parts=(
	'lsn lsn AllocateRelease|Reclaim 500000x'
	'nftnat nftnat Apply$|ApplyOne|RawLibrary 1s'
	'conntrack conntrack DeleteOne|SessionLife 1s'
	'radiusacct radiusacct . 1s'
	'subscriberdb subscriberdb Record 1s'
)

# ratio FILE A B TEXT: ns/op of A over that of B
ratio() {
	awk -v a="$2" -v b="$3" -v text="$4" '
		$1 ~ "^Benchmark" a "(-[0-9]+)?$" { x = $3 }
		$1 ~ "^Benchmark" b "(-[0-9]+)?$" { y = $3 }
		END { if (x && y) printf "=> %s: %.2fx\n", text, x / y }' "$1"
}

# limit FILE A NS TEXT: ns/op of A over a limit
limit() {
	awk -v a="$2" -v limit="$3" -v text="$4" '
		$1 ~ "^Benchmark" a "(-[0-9]+)?$" { printf "=> %s: %.2fx\n", text, $3 / limit }' "$1"
}

judge() {
	case $1 in
	lsn) limit "$2" 'AllocateRelease/live=1000000/held=10000' 1000 'allocate + release at 1 million bindings, share of the 1 microsecond it may take' ;;
	nftnat) ratio "$2" Apply RawLibrary 'time to program elements in batches, against google/nftables alone (may be 2x)' ;;
	radiusacct) ratio "$2" StageValidate StageValidateLayeh 'time to validate a request, against layeh/radius' ;;
	esac
}

out=$(mktemp)
trap 'rm -f "$out"' EXIT
for part in "${parts[@]}"; do
	read -r name package benchmarks time <<<"$part"
	if [ $# -gt 0 ] && [[ " $* " != *" $package "* ]]; then
		continue
	fi
	echo "== $name"
	go test -run '^$' -bench "$benchmarks" -benchtime "$time" "./internal/$package" | tee "$out"
	judge "$name" "$out"
done
if [ $# -eq 0 ] || [[ " $* " == *" radius "* ]]; then
	echo "== radius"
	scripts/bench-radius.sh
fi
