#!/bin/bash
# Accounting, the whole way: sessiond against FreeRADIUS 3.2 with rediswho, all on
# loopback of this machine, with cmd/acctload, which shares its processors, and a
# real Redis (appendonly everysec) for each. Rounds alternate between the
# candidates, every run begins with an empty Redis, and medians are compared.
#
# FreeRADIUS stands there three times: packaged, which is Debian's configuration as
# it is installed (detail files, wtmp, attribute filters), as ISPs run it, with
# rediswho added: the peer to compare with; with rediswho and nothing else, the least
# that keeps sessions in Redis; and bare, which stores nothing.
#
#	scripts/bench-radius.sh
#
# Environment: ROUNDS (3), SECONDS_EACH (4) of each run, CONCURRENCY (512)
# requests outstanding, as many as two ports of NASes can have, SUBSCRIBERS (20000).
#
# As root sessiond also runs with nftables, in a network namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-4}
concurrency=${CONCURRENCY:-512}
subscribers=${SUBSCRIBERS:-20000}

name=bench-radius
. scripts/bench-lib.sh

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

# start_packaged: Debian's modules, and its preacct and accounting sections with
# rediswho in them, behind a listener for accounting alone.
start_packaged() {
	local raddb=$dir/packaged log=$dir/packaged-log site=/etc/freeradius/3.0/sites-available/default
	start_redis
	rm -rf "$raddb" "$log"
	cp -a /etc/freeradius/3.0 "$raddb"
	mkdir -p "$log/radacct"
	sed -i -e "s|^logdir = .*|logdir = $log|" -e "s|^run_dir = .*|run_dir = $dir|" \
		-e "s|^pidfile = .*|pidfile = $dir/freeradius.pid|" \
		-e '/^[[:space:]]*\(user\|group\) = freerad/d' "$raddb/radiusd.conf"
	sed -i "s/^[[:space:]]*port = .*/port = $redis/" "$raddb/mods-available/redis"
	ln -sf ../mods-available/redis ../mods-available/rediswho "$raddb/mods-enabled/"
	rm -f "$raddb/mods-enabled/eap" "$raddb/sites-enabled/"*
	printf 'client load {\nipaddr = 127.0.0.0/8\nsecret = %s\n}\n' "$secret" >"$raddb/clients.conf"
	{
		printf 'server default {\nlisten {\ntype = acct\nipaddr = 127.0.0.1\nport = %s\n}\n' "$radius"
		sed -n '/^preacct {/,/^}/p' "$site"
		sed -n '/^accounting {/,/^}/p' "$site" | sed 's/^[[:space:]]*detail$/&\n\trediswho/'
		echo '}'
	} >"$raddb/sites-enabled/default"
	start freeradius-out freeradius -f -d "$raddb"
	await freeradius grep -q 'Ready to process' "$log/radius.log"
}

# load FLAGS...: one run of the generator, which needs no second processor and then
# disturbs the servers less; prints its JSON
load() {
	GOMAXPROCS=1 timeout 60 "$dir/acctload" "127.0.0.1:$radius" --secret "$secret" --subscribers "$subscribers" \
		--warmup 1s --duration "${seconds}s" -o json "$@"
}

launch() {
	case $1 in
	sessiond-memory) start_sessiond memory ;;
	sessiond-nftables) start_sessiond nftables ;;
	freeradius-rediswho) start_freeradius rediswho ;;
	freeradius-packaged) start_packaged ;;
	freeradius-bare) start_freeradius ok ;;
	esac
}

# judge NAME JSON: says what was not right in a run
judge() {
	local lost bad unsent
	lost=$(field lost "$2") unsent=$(field unsent "$2") bad=$(sed -n 's/.*"bad":{"total":\([0-9]*\).*/\1/p' <<<"$2")
	if [ "$lost" != 0 ] || [ "$bad" != 0 ] || [ "$unsent" != 0 ]; then
		echo "$1: $lost lost, $bad bad, $unsent due and not sent"
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

# run CANDIDATE MIX FLAGS...: a mix is the name under which results are kept
run() {
	local candidate=$1 mix=$2 json before after cost
	shift 2
	launch "$candidate"
	before=$(ticks)
	json=$(load --concurrency "$concurrency" "$@") || fail "$candidate: the load did not run"
	after=$(ticks)
	stop_servers
	judge "$candidate" "$json"
	cost=$(((after - before) * 10000 / $(field replies "$json")))
	printf '%-20s %-8s %8.0f/s  p99 %7.2f ms  %4d us of processor a request, Redis included\n' \
		"$candidate" "$mix" "$(field rate "$json")" "$(latency p99 "$json")" "$cost"
	field rate "$json" >>"$dir/$candidate.$mix.rates"
	echo "$cost" >>"$dir/$candidate.$mix.costs"
}

# script_rate runs the smallest script a store of sessions could do with, alone.
script_rate() {
	"$dir/subscriberdb.test" -test.run '^$' -test.bench '^BenchmarkBareScript$' -test.benchtime 100000x |
		awk '/events\/s/ { for (i = 1; i < NF; i++) if ($(i + 1) == "events/s") print $i }' >>"$dir/script.alone.rates"
}

# rate CANDIDATE MIX, cost CANDIDATE MIX
rate() { median <"$dir/$1.$2.rates"; }
cost() { median <"$dir/$1.$2.costs"; }

# against CANDIDATE MIX PEER TEXT
against() {
	ratio "$(rate "$1" "$2")" "$(rate "$3" "$2")" "$1, $2, against $4"
	ratio "$(cost "$3" "$2")" "$(cost "$1" "$2")" "the same by processor time, which other load on the machine hardly changes"
}

# at_half CANDIDATE: an open loop at half of what it could do a moment ago, for the
# machine is not as fast at all times; from few ports, as of few NASes: the generator
# disturbs the servers less
at_half() {
	local json half p99
	half=$(awk -v r="$(tail -n 1 "$dir/$1.even.rates")" 'BEGIN { print int(r / 2) }')
	launch "$1"
	json=$(load --rate "$half" --sockets 4) || fail "$1: the load at half did not run"
	stop_servers
	judge "$1 at half" "$json"
	p99=$(latency p99 "$json")
	printf '%-20s half     %8.0f/s  p99 %7.2f ms\n' "$1" "$half" "$p99"
	echo "$p99" >>"$dir/$1.half.p99"
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
	ratio "$(latency p99 "$json")" 10 "their p99, as a share of 10 ms"
}

every_start_served() {
	local active
	active=$(get /metrics | awk '/^sessiond_bindings\{/ && /state="active"/ { print $2 }')
	awk -v a="${active:-0}" -v want="$1" 'BEGIN { exit !(a >= want) }'
}

CGO_ENABLED=0 go build -o "$dir/" ./cmd/sessiond ./cmd/acctload
go test -c -o "$dir/subscriberdb.test" ./internal/subscriberdb
redis=$(port) radius=$(port) grpc=$(port) http=$(port)

candidates=(sessiond-memory freeradius-rediswho freeradius-packaged freeradius-bare)
if [ "$(id -u)" = 0 ]; then
	candidates+=(sessiond-nftables)
else
	echo "not root: the kernel is left out"
fi

echo "even: as many Interims as Starts and Stops; day: eight Interims a session, closer to an ISP's day"
echo "$concurrency outstanding, $subscribers subscribers, $rounds rounds of $seconds s"
for ((round = 0; round < rounds; round++)); do
	for candidate in "${candidates[@]}"; do
		run "$candidate" even
		case $candidate in sessiond-*) at_half "$candidate" ;; esac
		run "$candidate" day --interims 8
	done
	script_rate
done

for candidate in "${candidates[@]}"; do
	printf 'median %-20s even %8.0f/s  day %8.0f/s\n' "$candidate" "$(rate "$candidate" even)" "$(rate "$candidate" day)"
done
printf 'median %-20s %8.0f/s\n' "script, Redis alone" "$(rate script alone)"
for candidate in "${candidates[@]}"; do
	case $candidate in sessiond-*)
		for mix in even day; do
			against "$candidate" "$mix" freeradius-packaged "FreeRADIUS as packaged, with rediswho (must be 5x)"
			against "$candidate" "$mix" freeradius-rediswho "FreeRADIUS with rediswho and nothing else"
			against "$candidate" "$mix" freeradius-bare "FreeRADIUS that stores nothing"
		done
		ratio "$(rate "$candidate" even)" "$(rate script alone)" "$candidate against Redis alone, with the smallest script"
		ratio "$(median <"$dir/$candidate.half.p99")" 10 \
			"$candidate at half of its rate a moment before, p99 as a share of the 10 ms it may take"
		;;
	esac
done
if [ "$(id -u)" = 0 ]; then
	starts
fi
