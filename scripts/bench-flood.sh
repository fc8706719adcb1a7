#!/bin/bash
# How a client fares while another floods: latencies of a client that asks one
# thing after the other, alone and beside floods of RATE packets a second:
#
#	strangers  from an address that is no client's
#	forged     from a known client's address, with a wrong secret
#	storm      sound Starts of a known client, all new
#
# On one machine the flood's generator takes processors from everybody. So the
# ratios are to the latencies beside the same flood sent to a socket that nobody
# reads; those to an idle machine are printed too. Rounds alternate, and medians
# of the rounds are compared.
#
#	scripts/bench-flood.sh
#
# Environment: RATE (50000), ROUNDS (5), SECONDS_EACH (2) of each run, CASES (all;
# "alone" and "sink" must be among them).
set -euo pipefail
cd "$(dirname "$0")/.."

rate=${RATE:-50000}
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-2}

name=bench-flood
. scripts/bench-lib.sh

start_sessiond() {
	start_redis
	cat >"$dir/sessiond.yaml" <<-YAML
		node: bench
		redis: {url: "redis://127.0.0.1:$redis/0"}
		radius:
		  listen: ["127.0.0.1:$radius"]
		  clients:
		    - {name: good, prefix: 127.0.0.9/32, secret: $secret}
		    - {name: storm, prefix: 127.0.0.2/32, secret: $secret}
		grpc: {listen: "127.0.0.1:$grpc"}
		http: {listen: "127.0.0.1:$http"}
		nat: {backend: memory, inside_interfaces: [s0], outside_interfaces: [i0]}
		groups:
		  - {name: default, inside: [100.64.0.0/10], outside: [198.18.0.0/20], hold: 120s}
		log: {level: error}
	YAML
	start sessiond "$dir/sessiond" --config "$dir/sessiond.yaml"
	await sessiond curl_ready
}

# flood PORT SOURCE SECRET: in the background, until killed
flood() {
	"$dir/acctload" "127.0.0.1:$1" --source "$2" --secret "$3" --scenario flood --rate "$rate" --even \
		--inside 100.65.0.0/16 --subscribers 20000 --nas flood --duration 1h >"$dir/flood.log" 2>&1 &
	flooder=$!
}

# client CASE: latencies of the good client
client() {
	local json
	json=$(timeout 60 "$dir/acctload" "127.0.0.1:$radius" --source 127.0.0.9 --secret "$secret" --concurrency 1 \
		--subscribers 200 --warmup 0.5s --duration "${seconds}s" -o json) || fail "$1: the client got no answer"
	[ "$(field lost "$json")" = 0 ] || echo "$1: $(field lost "$json") requests of the good client lost"
	latency p50 "$json" >>"$dir/$1.p50"
	latency p99 "$json" >>"$dir/$1.p99"
}

run() {
	flooder=
	start_sessiond
	case $1 in
	sink) flood "$sink" 127.0.0.2 "$secret" ;;
	strangers) flood "$radius" 127.0.1.1 "$secret" ;;
	forged) flood "$radius" 127.0.0.2 wrong ;;
	storm) flood "$radius" 127.0.0.2 "$secret" ;;
	esac
	client "$1"
	if [ "$1" = storm ]; then
		get /metrics | awk -v s="$seconds" '/^sessiond_accounting_verdicts_total/ { n += $2 }
			END { printf "beside the storm: about %.0f events/s recorded, of both clients\n", n / (s + 0.6) }'
	fi
	if [ -n "$flooder" ]; then
		kill "$flooder"
		wait "$flooder" 2>/dev/null || true
	fi
	stop_servers
}

CGO_ENABLED=0 go build -o "$dir/" ./cmd/sessiond ./cmd/acctload
redis=$(port) radius=$(port) grpc=$(port) http=$(port) sink=$(port)
perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1:$ARGV[0]") and sleep' "$sink" &
unread=$!
trap 'kill "$unread"; cleanup' EXIT

read -r -a cases <<<"${CASES:-alone sink strangers forged storm}"
for ((round = 0; round < rounds; round++)); do
	for case in "${cases[@]}"; do
		run "$case"
	done
done

of() { median <"$dir/$1.$2"; }

echo "one client that asks one thing at a time, beside floods of $rate packets/s; medians of $rounds runs of $seconds s"
for case in "${cases[@]}"; do
	awk -v case="$case" -v p50="$(of "$case" p50)" -v p99="$(of "$case" p99)" \
		-v s50="$(of sink p50)" -v s99="$(of sink p99)" -v a50="$(of alone p50)" -v a99="$(of alone p99)" 'BEGIN {
			printf "%-10s p50 %7.3f ms  p99 %7.3f ms   to sink: p50 %5.2fx  p99 %5.2fx   to alone: p50 %5.2fx  p99 %5.2fx\n",
				case, p50, p99, p50 / s50, p99 / s99, p50 / a50, p99 / a99 }'
done
for case in strangers forged storm; do
	ratio "$(of "$case" p50)" "$(of sink p50)" "$case, median of the good client against the same flood elsewhere (must be below 2x)"
	ratio "$(of "$case" p99)" "$(of sink p99)" "$case, p99 of the good client against the same flood elsewhere (must be below 2x)"
done
