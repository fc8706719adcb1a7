#!/bin/bash
# Accounting, the whole way: sessiond against FreeRADIUS 3.2 with rediswho, all on
# loopback of this machine, with cmd/acctload, which shares its processors, and a
# real Redis (appendonly everysec) for each. Rounds alternate between the
# candidates, every run begins with an empty Redis, and medians are compared.
#
#	scripts/bench-radius.sh
#
# Environment: ROUNDS (3), SECONDS_EACH (4) of each run, CONCURRENCY (256)
# requests outstanding, SUBSCRIBERS (20000).
#
# As root sessiond also runs with nftables, in a network namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-4}
concurrency=${CONCURRENCY:-256}
subscribers=${SUBSCRIBERS:-20000}

scripts/setup-debian.sh

dir=$(mktemp -d)
namespace=sessiond-bench-$$
secret=bench-$$
pids=()

stop_servers() {
	[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
	[ ${#pids[@]} -eq 0 ] || wait "${pids[@]}" 2>/dev/null || true
	pids=()
}

cleanup() {
	stop_servers
	ip netns delete "$namespace" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
	echo "bench-radius: $*" >&2
	tail -n 5 "$dir"/*.log >&2 || true
	exit 1
}

# await TEXT COMMAND...: waits until the command succeeds, for 10 s
await() {
	local text=$1 i
	shift
	for ((i = 0; i < 100; i++)); do
		if "$@" >/dev/null 2>&1; then
			return
		fi
		sleep 0.1
	done
	fail "$text did not come up"
}

port() { # a UDP and TCP port that nothing has
	local p
	while :; do
		p=$((20000 + RANDOM % 12000))
		[ -n "$(ss -Hlntu "sport = :$p")" ] || break
	done
	echo "$p"
}

# start NAME COMMAND...: in the background, until stop_servers
start() {
	local name=$1
	shift
	"$@" >"$dir/$name.log" 2>&1 &
	pids+=($!)
}

start_redis() {
	rm -rf "$dir/redis"
	mkdir "$dir/redis"
	start redis redis-server --bind 127.0.0.1 --port "$redis" --dir "$dir/redis" --save '' \
		--appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0
	await redis redis-cli -p "$redis" ping
}

# start_namespace makes it anew: a table that stands while Redis is empty is a
# lost database to sessiond, which then holds all blocks back.
start_namespace() {
	ip netns delete "$namespace" 2>/dev/null || true
	ip netns add "$namespace"
	ip -n "$namespace" link add s0 type veth peer name i0
	local link
	for link in lo s0 i0; do
		ip -n "$namespace" link set "$link" up
	done
}

# sessiond BACKEND
start_sessiond() {
	start_redis
	[ "$1" = memory ] || start_namespace
	cat >"$dir/sessiond.yaml" <<-YAML
		node: bench
		redis: {url: "redis://127.0.0.1:$redis/0"}
		radius:
		  listen: ["127.0.0.1:$radius"]
		  clients: [{name: load, prefix: 127.0.0.0/8, secret: $secret}]
		grpc: {listen: "127.0.0.1:$grpc"}
		http: {listen: "127.0.0.1:$http"}
		nat: {backend: $1, netns: "$([ "$1" = memory ] || echo "$namespace")", inside_interfaces: [s0], outside_interfaces: [i0]}
		groups:
		  - {name: default, inside: [100.64.0.0/10], outside: [198.18.0.0/20], hold: 120s}
		log: {level: warn}
	YAML
	start sessiond "$dir/sessiond" --config "$dir/sessiond.yaml"
	await sessiond curl_ready
}

curl_ready() { get /readyz | grep -q '^HTTP/1.[01] 200'; }

# get PATH: of sessiond's HTTP side, without further programs
get() {
	local line
	exec 9<>"/dev/tcp/127.0.0.1/$http"
	printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&9
	while IFS= read -r line <&9; do
		echo "${line%$'\r'}"
	done
	exec 9>&-
}

# freeradius MODULE: with the modules' settings as the package brings them
start_freeradius() {
	start_redis
	mkdir -p "$dir/raddb"
	: >"$dir/raddb/dictionary"
	cat >"$dir/raddb/radiusd.conf" <<-CONF
		prefix = /usr
		libdir = /usr/lib/freeradius
		logdir = $dir
		run_dir = $dir
		raddbdir = $dir/raddb
		pidfile = $dir/freeradius.pid
		max_requests = 262144
		hostname_lookups = no
		log {
			destination = files
			file = $dir/freeradius.log
		}
		thread pool {
			start_servers = 5
			max_servers = 32
			min_spare_servers = 3
			max_spare_servers = 10
			max_requests_per_server = 0
		}
		client load {
			ipaddr = 127.0.0.0/8
			secret = $secret
		}
		modules {
			always ok {
				rcode = ok
			}
			redis {
				server = 127.0.0.1
				port = $redis
				pool {
					start = 5
					min = 3
					max = 32
					spare = 10
					uses = 0
					lifetime = 0
					idle_timeout = 0
				}
			}
			\$INCLUDE /etc/freeradius/3.0/mods-available/rediswho
		}
		server default {
			listen {
				type = acct
				ipaddr = 127.0.0.1
				port = $radius
			}
			accounting {
				$1
			}
		}
	CONF
	start freeradius-out freeradius -f -d "$dir/raddb"
	await freeradius grep -q 'Ready to process' "$dir/freeradius.log"
	: >"$dir/freeradius.log"
}

# load FLAGS...: one run of the generator; prints its JSON
load() {
	timeout 60 "$dir/acctload" "127.0.0.1:$radius" --secret "$secret" --subscribers "$subscribers" \
		--warmup 1s --duration "${seconds}s" -o json "$@"
}

# field NAME JSON: the first number of that name
field() {
	sed -n "s/^[^\n]*\"$1\":\([0-9.e+]*\).*/\1/p" <<<"$2" | head -n 1
}

# latency JSON: p99 of all requests in milliseconds
latency() { sed -n 's/.*"latency_ms":{[^}]*"p99":\([0-9.e+-]*\).*/\1/p' <<<"$1"; }

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

launch() {
	case $1 in
	sessiond-memory) start_sessiond memory ;;
	sessiond-nftables) start_sessiond nftables ;;
	freeradius-rediswho) start_freeradius rediswho ;;
	freeradius-bare) start_freeradius ok ;;
	esac
}

# judge NAME JSON: says what was not right in a run
judge() {
	local lost bad
	lost=$(field lost "$2") bad=$(sed -n 's/.*"bad":{"total":\([0-9]*\).*/\1/p' <<<"$2")
	if [ "$lost" != 0 ] || [ "$bad" != 0 ]; then
		echo "$1: $lost lost, $bad bad"
	fi
}

# ticks of processor time that the servers have used, 100 a second
ticks() {
	local pid sum=0 stat
	for pid in "${pids[@]}"; do
		read -r -a stat <"/proc/$pid/stat"
		sum=$((sum + stat[13] + stat[14]))
	done
	echo "$sum"
}

run() {
	local json before after cost
	launch "$1"
	before=$(ticks)
	json=$(load --concurrency "$concurrency") || fail "$1: the load did not run"
	after=$(ticks)
	stop_servers
	judge "$1" "$json"
	cost=$(((after - before) * 10000 / $(field replies "$json")))
	printf '%-20s %8.0f/s  p99 %7.2f ms  %4d us of processor a request, Redis included\n' \
		"$1" "$(field rate "$json")" "$(latency "$json")" "$cost"
	field rate "$json" >>"$dir/$1.rates"
	echo "$cost" >>"$dir/$1.costs"
}

# script_rate runs the smallest script a store of sessions could do with, alone.
script_rate() {
	"$dir/subscriberdb.test" -test.run '^$' -test.bench '^BenchmarkBareScript$' -test.benchtime 100000x |
		awk '/events\/s/ { for (i = 1; i < NF; i++) if ($(i + 1) == "events/s") print $i }' >>"$dir/script.rates"
}

rate() { median <"$dir/$1.rates"; }
cost() { median <"$dir/$1.costs"; }

# ratio A B TEXT
ratio() { awk -v a="$1" -v b="$2" -v text="$3" 'BEGIN { printf "=> %s: %.2fx\n", text, a / b }'; }

# at_half CANDIDATE: an open loop at half of what it can do
at_half() {
	local json half
	half=$(awk -v r="$(rate "$1")" 'BEGIN { print int(r / 2) }')
	launch "$1"
	json=$(load --rate "$half") || fail "$1: the load at half did not run"
	stop_servers
	judge "$1 at half" "$json"
	ratio "$(latency "$json")" 10 "$1 at half of that ($half/s), p99 as a share of the 10 ms it may take"
}

# starts sends 10,000 Starts a second, each of another subscriber, and waits
# until NAT serves all of them.
starts() {
	local json
	launch sessiond-nftables
	json=$(timeout 60 "$dir/acctload" "127.0.0.1:$radius" --secret "$secret" --subscribers 50000 --scenario start \
		--rate 10000 --even --warmup 0s --duration 4s -o json) || fail "the Starts were not sent"
	await "NAT of every Start" every_start_served "$(field answered "$json")"
	judge "10,000 Starts/s" "$json"
	stop_servers
	ratio "$(field rate "$json")" 10000 "Starts through to NAT in the kernel, against 10,000/s"
	ratio "$(latency "$json")" 10 "their p99, as a share of 10 ms"
}

every_start_served() {
	local active
	active=$(get /metrics | awk '/^sessiond_bindings\{/ && /state="active"/ { print $2 }')
	awk -v a="${active:-0}" -v want="$1" 'BEGIN { exit !(a >= want) }'
}

CGO_ENABLED=0 go build -o "$dir/" ./cmd/sessiond ./cmd/acctload
go test -c -o "$dir/subscriberdb.test" ./internal/subscriberdb
redis=$(port) radius=$(port) grpc=$(port) http=$(port)

candidates=(sessiond-memory freeradius-rediswho freeradius-bare)
if [ "$(id -u)" = 0 ]; then
	candidates+=(sessiond-nftables)
else
	echo "not root: the kernel is left out"
fi

echo "mix of Start, Interim and Stop, $concurrency outstanding, $subscribers subscribers, $rounds rounds of $seconds s"
for ((round = 0; round < rounds; round++)); do
	for candidate in "${candidates[@]}"; do
		run "$candidate"
	done
	script_rate
done

for candidate in "${candidates[@]}" script; do
	printf 'median %-20s %8.0f/s\n' "$candidate" "$(rate "$candidate")"
done
for candidate in "${candidates[@]}"; do
	case $candidate in sessiond-*)
		ratio "$(rate "$candidate")" "$(rate freeradius-rediswho)" "$candidate against FreeRADIUS with rediswho (must be 5x)"
		ratio "$(cost freeradius-rediswho)" "$(cost "$candidate")" "the same by processor time, which other load on the machine hardly changes"
		ratio "$(rate "$candidate")" "$(rate freeradius-bare)" "$candidate against FreeRADIUS that stores nothing"
		ratio "$(rate "$candidate")" "$(rate script)" "$candidate against Redis alone, with the smallest script"
		at_half "$candidate"
		;;
	esac
done
if [ "$(id -u)" = 0 ]; then
	starts
fi
