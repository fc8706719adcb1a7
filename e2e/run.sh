#!/bin/bash
# The scenarios across containers: starts the lab of deploy/lab under a project name of its
# own, runs the Go tests of this directory against it, and takes everything down again, also
# where this script is killed.
#
#	e2e/run.sh [go test flags]        needs root, a Docker engine and bin/*
#
# COMPOSE chooses the compose command; KEEP=1 leaves the containers standing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin

fail() {
	echo "e2e: $*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root, to look into the containers' network namespaces"
docker info >/dev/null 2>&1 || fail "no Docker engine answers"
for program in bin/sessiond bin/sessionctl bin/labhost; do
	[ -x "$program" ] || fail "no $program; run make build"
done

if [ -n "${COMPOSE:-}" ]; then
	compose=$COMPOSE
elif docker compose version >/dev/null 2>&1; then
	compose="docker compose"
elif command -v docker-compose >/dev/null; then
	compose=docker-compose
else
	fail "neither docker compose nor docker-compose is here"
fi

# free_slot prints the first number whose subnets no network of the engine has.
free_slot() {
	local subnets slot
	subnets=$(docker network ls -q | xargs docker network inspect -f '{{range .IPAM.Config}}{{.Subnet}} {{end}}')
	for slot in $(seq $(($$ % 256)) 255) $(seq 0 255); do
		if ! grep -qE "(100\.64|198\.18|10\.91|10\.92)\.$slot\.0/" <<<"$subnets"; then
			echo "$slot"
			return
		fi
	done
	fail "every subnet is taken; remove networks of earlier runs"
}

export E2E_PROJECT=sessiond-e2e-$$ E2E_COMPOSE_COMMAND=$compose
export E2E_COMPOSE="$compose -p $E2E_PROJECT -f deploy/lab/compose.yaml"
export LAB_NAME=$E2E_PROJECT # of the images
LAB=$(free_slot)
mkdir -p e2e/.work
work=$(mktemp -d "$PWD/e2e/.work/run.XXXXXX")
export LAB LAB_CONFIG=$work/config # the folder of sessiond's configuration, which a scenario edits
export SESSIOND_RADIUS_LISTEN=127.0.0.1:0
export DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} COMPOSE_DOCKER_CLI_BUILD=${COMPOSE_DOCKER_CLI_BUILD:-0}
mkdir "$LAB_CONFIG"
cp deploy/lab/sessiond.yaml "$LAB_CONFIG"

# The keeper outlives this script, whatever ends it, and takes everything down. It has the reading
# end of a pipe whose writing end nobody but this script has.
mkfifo "$work/alive"
setsid bash e2e/take-down.sh "$work" <"$work/alive" >/dev/null 2>&1 &
keeper=$!
exec 9>"$work/alive"

finish() {
	local status=$?
	trap - EXIT
	if [ "$status" != 0 ]; then
		$E2E_COMPOSE ps -a >&2 9>&- || true
		$E2E_COMPOSE logs --no-color --tail 200 >&2 9>&- || true
	fi
	if [ "${KEEP:-}" = 1 ]; then
		echo keep >&9
		echo "e2e: left standing: LAB=$LAB LAB_NAME=$LAB_NAME $E2E_COMPOSE" >&2
	fi
	exec 9>&-
	wait "$keeper" || {
		echo "e2e: could not take down project $E2E_PROJECT" >&2
		status=1
	}
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

scripts/local-image.sh redis:7 prom/prometheus:v2.42.0 9>&-
echo "e2e: $compose up, project $E2E_PROJECT"

# grouped runs a command in the background, in a process group of its own that the keeper knows: so
# that a signal takes everything down at once.
grouped() {
	set -m
	(
		echo "$BASHPID" >&9
		exec 9>&-
		exec "$@"
	) &
	set +m
	wait $!
}

# shellcheck disable=SC2086 # words
grouped $E2E_COMPOSE up -d --build >"$work/log" 2>&1 || {
	cat "$work/log" >&2
	fail "the containers did not start"
}
export CGO_ENABLED=0
grouped go test -trimpath -tags e2e -count 1 -parallel 1 -timeout 10m -v "$@" ./e2e
