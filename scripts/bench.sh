#!/bin/bash
# Runs the benchmarks and prints, under each part, how sessiond stands to the
# peer or the limit it is measured against: both from this one run, as a ratio.
# Usage: scripts/bench.sh [part ...], each a part or a directory below internal/, or
# "radius" for accounting as a whole against FreeRADIUS, or "flood" for a client
# beside one that floods. SCALE names the sizes of part "scale" ("100000 1000000").
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin

# part package benchmarks benchtime
parts=(
	'lsn lsn AllocateRelease|Reclaim 500000x'
	'nftnat nftnat Apply$|ApplyOne|RawLibrary 1s'
	'udpbatch udpbatch . 1s'
	'removal conntrack DeleteOne/proven/entries=500000 20x'
	'conntrack conntrack DeleteMany/entries=500000|Memory|Arrivals|SessionLife 3x'
	'teardown nftnat MassTeardown/entries=500000 3x'
	'cut nftnat Cut 500x'
	'forward nftnat MappedPackets|Limits 60x'
	'radiusacct radiusacct/... . 1s'
	'subscriberdb subscriberdb Record 1s'
	'pcp pcp Answer 1s'
	'asks session Asks 100000x'
	'control control EventToWatchers 500x'
	'readers control EventsToReaders 200x'
	'history history Append 1x'
	'lookup history Lookup 1000x'
	'removeday history RemoveDay 1x'
	'speed ../test/speed Cut|FirstPacket|NASRestart$ 1x'
	'restart ../test/speed NASRestartOfAll 1x'
	'watchers ../test/speed Watchers 1x'
	'scale ../test/scale Scale 1x'
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

# stages FILE: what one packet costs on its way, stage by stage
stages() {
	awk '
		BEGIN { printf "%-12s %12s %12s\n", "stage", "us/packet", "allocs" }
		$1 ~ /^BenchmarkStage/ {
			name = $1; sub(/^BenchmarkStage/, "", name); sub(/-[0-9]+$/, "", name)
			for (i = 3; i < NF; i++) if ($(i + 1) == "allocs/op") allocs = $i
			printf "%-12s %12.3f %12s\n", tolower(name), $3 / 1000, allocs
		}' "$1"
}

# metric FILE A UNIT LIMIT TEXT: a metric of A, over a limit
metric() {
	awk -v a="$2" -v unit="$3" -v limit="$4" -v text="$5" '
		$1 ~ "^Benchmark" a "(-[0-9]+)?$" {
			for (i = 3; i < NF; i += 2)
				if ($(i + 1) == unit) printf "=> %s: %s %s, %.2fx\n", text, $i, unit, $i / limit
		}' "$1"
}

# growth FILE A B UNIT LIMIT TEXT: a metric of A over that of B, and over a limit
growth() {
	awk -v a="$2" -v b="$3" -v unit="$4" -v limit="$5" -v text="$6" '
		function value() { for (i = 3; i < NF; i += 2) if ($(i + 1) == unit) return $i }
		$1 ~ "^Benchmark" a "(-[0-9]+)?$" { x = value() }
		$1 ~ "^Benchmark" b "(-[0-9]+)?$" { y = value() }
		END { if (x && y) printf "=> %s: %.1f times, %.2fx\n", text, x / y, x / y / limit }' "$1"
}

forward() {
	local size
	for size in 1/flows=1 10000/flows=1000 10000/flows=10000 1000000/flows=1000 1000000/flows=10000; do
		metric "$1" "MappedPackets/bindings=$size" ratio-plain 0.95 "packets a second among bindings=$size, against one masquerade rule, over the 0.95 it must be"
		metric "$1" "MappedPackets/bindings=$size" ratio-cone 0.9 'the same with full cone, over the 0.9 it must be (0.85 at a million)'
	done
}

removal() {
	metric "$1" DeleteOne/proven/entries=500000 x-conntrack-D 100 'one subscriber of 5,000 removed and proved, against conntrack -D -s (must be 100 times faster)'
}

conntrack() {
	metric "$1" DeleteMany/entries=500000 s/teardown 5 '2,500 of them at once, share of the 5 seconds it may take'
	metric "$1" Memory B/session 100 'memory of the index, share of the 100 octets a session may take'
	metric "$1" Arrivals sessions/s 75000 'new sessions that the index followed, against the 75,000/s it must'
	metric "$1" Arrivals overruns 1 'times that events were lost meanwhile (must be 0)'
	metric "$1" SessionLife cpu-ns/session 10000 'CPU time of a session in the index, share of the 10 microseconds it may take'
}

teardown() {
	metric "$1" MassTeardown/entries=500000 x-p99 1 'round trips of a neighbour while 2,500 of 5,000 subscribers are removed, p99 against before'
	metric "$1" MassTeardown/entries=500000 %lost-meanwhile 1 'its packets lost meanwhile (must be 0)'
}

speed() {
	metric "$1" FirstPacket_SES24 p99-ms 1000 'first packet translated after the answer to a Start, p99 at 1,000 Starts/s, share of the second it may take'
	metric "$1" NASRestart s 5 "Accounting-Off of 2,500 subscribers with 250,000 of 500,000 sessions to the last one gone, share of the 5 seconds it may take"
	local way
	for way in stop del; do
		metric "$1" "Cut/$way/entries=0" p99-ms 10 "packets stop after $way, p99, share of the 10 ms it may take"
		metric "$1" "Cut/$way/entries=500000" p99-ms 10 'the same beside 500,000 sessions'
	done
}

restart() {
	metric "$1" NASRestartOfAll/1000000 s 40 'Accounting-Off of a million subscribers to nothing left, share of the 40 seconds it may take'
	growth "$1" NASRestartOfAll/1000000 NASRestartOfAll/100000 s 12 'growth from 100,000 to a million, share of the 12 times it may be'
}

history() {
	local online
	for online in 20000 200000; do
		metric "$1" "Append/online=$online/sessions=1" records/s 100000 "records that were stored in catch-up, online=$online, against the 100,000/s it must"
		metric "$1" "Append/online=$online/sessions=1" today-B/record 80 "octets a record in today's file, share of the 80 it may take"
		metric "$1" "Append/online=$online/sessions=1" B/record 40 'the same at rest, one session a subscriber and day, share of the 40 it may take'
		metric "$1" "Append/online=$online/sessions=5" B/record 40 'the same with five sessions'
		metric "$1" "Append/online=$online/sessions=5" open-s 2 'start that reads them, share of the 2 seconds it may take'
	done
}

lookup() {
	local records
	for records in 400000 "${HISTORY_RECORDS:-4000000}"; do
		metric "$1" "Lookup/records=$records/warm" p99-ms 1 "who had a port, among $records records, p99, share of the 1 ms it may take"
		metric "$1" "Lookup/records=$records/cold" p99-ms 10 'the same with an empty page cache, share of the 10 ms it may take'
		metric "$1" "Lookup/records=$records/warm" open-s 2 'start of the store, share of the 2 seconds it may take'
	done
}

removeday() {
	local records
	for records in 400000 4000000; do
		metric "$1" "RemoveDay/records=$records" lookup-ms 10 "longest lookup while days are removed, of $records records, share of the 10 ms it may take"
		metric "$1" "RemoveDay/records=$records" append-ms 10 'longest append meanwhile, with its fsync'
	done
}

judge() {
	case $1 in
	history) history "$2" ;;
	lookup) lookup "$2" ;;
	removeday) removeday "$2" ;;
	speed) speed "$2" ;;
	restart) restart "$2" ;;
	watchers)
		metric "$2" Watchers/readers=0 x-rate 1 'requests a second beside 1,000 watchers, one of them stalled, against none'
		metric "$2" Watchers/readers=0 x-p99 1 'time to their replies at half load, p99, against none'
		metric "$2" Watchers/readers=1 x-rate 1 'the same where one of them reads all events on this machine'
		metric "$2" Watchers/readers=1 x-p99 1 'the same, p99'
		metric "$2" Watchers/readers=1/batch x-rate 1 'the same with several events in a message'
		metric "$2" Watchers/readers=1/batch x-p99 1 'the same, p99'
		metric "$2" Watchers/readers=999 x-rate 1 'where all but the stalled one read all events'
		metric "$2" Watchers/readers=999/batch x-rate 1 'the same with several events in a message'
		;;
	asks) metric "$2" Asks p99-µs 5000 '10,000 mappings a second asked for by PCP, p99, share of the 5 ms it may take' ;;
	removal) removal "$2" ;;
	forward) forward "$2" ;;
	conntrack) conntrack "$2" ;;
	teardown) teardown "$2" ;;
	cut) metric "$2" Cut/entries=500000 p99-us 10000 'time to close a gate beside 500,000 sessions, p99, share of the 10 ms it may take' ;;
	lsn) limit "$2" 'AllocateRelease/live=1000000/held=10000' 1000 'allocate + release at 1 million bindings, share of the 1 microsecond it may take' ;;
	nftnat) ratio "$2" Apply RawLibrary 'time to program elements in batches, against google/nftables alone (may be 2x)' ;;
	radiusacct)
		stages "$2"
		ratio "$2" StageValidate LayehValidate 'time to validate a request, against layeh/radius'
		;;
	esac
}

out=$(mktemp)
trap 'rm -f "$out"' EXIT
for part in "${parts[@]}"; do
	read -r name package benchmarks time <<<"$part"
	if [ $# -gt 0 ] && [[ " $* " != *" $package "* && " $* " != *" $name "* ]]; then
		continue
	fi
	echo "== $name"
	go test -run '^$' -bench "$benchmarks" -benchtime "$time" -timeout 3h "./internal/$package" | tee "$out"
	judge "$name" "$out"
done
if [ $# -eq 0 ] || [[ " $* " == *" radius "* ]]; then
	echo "== radius"
	scripts/bench-radius.sh
fi
if [ $# -eq 0 ] || [[ " $* " == *" flood "* ]]; then
	echo "== flood"
	scripts/bench-flood.sh
fi
