# What the benchmarks of accounting share: servers on loopback, and the generator.
# To be sourced in the root of the repository, by a script that sets name.
# shellcheck shell=bash

export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
scripts/setup-debian.sh

dir=$(mktemp -d)
namespace=sessiond-bench-$$ # of those that make one
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
	echo "$name: $*" >&2
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

# field NAME JSON: the first number of that name
field() {
	sed -n "s/^[^\n]*\"$1\":\([0-9.e+]*\).*/\1/p" <<<"$2" | head -n 1
}

# latency QUANTILE JSON: of all requests, in milliseconds
latency() { sed -n "s/.*\"latency_ms\":{[^}]*\"$1\":\([0-9.e+-]*\).*/\1/p" <<<"$2"; }

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# ratio A B TEXT
ratio() { awk -v a="$1" -v b="$2" -v text="$3" 'BEGIN { printf "=> %s: %.2fx\n", text, a / b }'; }
