#!/bin/bash
# The main job across containers: builds the images, starts docker-compose.yml
# with e2e/compose.yml under a project name of its own, runs the Go tests of
# this directory against it, and takes everything down again.
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
	read -ra compose <<<"$COMPOSE"
elif docker compose version >/dev/null 2>&1; then
	compose=(docker compose)
elif command -v docker-compose >/dev/null; then
	compose=(docker-compose)
else
	fail "neither docker compose nor docker-compose is here"
fi

# free_slot prints the first number whose subnets no network of the engine has.
free_slot() {
	local subnets slot
	subnets=$(docker network ls -q | xargs docker network inspect -f '{{range .IPAM.Config}}{{.Subnet}} {{end}}')
	for slot in $(seq $(($$ % 256)) 255) $(seq 0 255); do
		if ! grep -qE "(100\.64|198\.18)\.$slot\.0/" <<<"$subnets"; then
			echo "$slot"
			return
		fi
	done
	fail "every subnet is taken; remove networks of earlier runs"
}

export E2E_PROJECT=sessiond-e2e-$$
images=("$E2E_PROJECT-labhost" "$E2E_PROJECT-sessiond") # named so in compose.yml
E2E_SLOT=$(free_slot)
export E2E_SLOT
export SESSIOND_RADIUS_LISTEN=127.0.0.1:0 # any port: the BNG comes by the network
export DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} COMPOSE_DOCKER_CLI_BUILD=${COMPOSE_DOCKER_CLI_BUILD:-0}

in_project() {
	"${compose[@]}" -p "$E2E_PROJECT" -f docker-compose.yml -f e2e/compose.yml "$@"
}

tests=
take_down() {
	local status=$?
	trap - EXIT
	if [ -n "$tests" ]; then
		kill -- "-$tests" 2>/dev/null || true
	fi
	if [ "$status" != 0 ]; then
		in_project ps -a >&2 || true
		in_project logs --no-color --tail 200 >&2 || true
	fi
	if [ "${KEEP:-}" = 1 ]; then
		echo "e2e: left standing: project $E2E_PROJECT, E2E_SLOT=$E2E_SLOT" >&2
	else
		{ in_project down --volumes --remove-orphans --timeout 5 && docker rmi "${images[@]}"; } >"$log" 2>&1 || {
			echo "e2e: could not take down project $E2E_PROJECT:" >&2
			cat "$log" >&2
		}
	fi
	rm -f "$log"
	if [ "${KEEP:-}" != 1 ]; then
		rm -rf "$E2E_CONFIG"
		rmdir --ignore-fail-on-non-empty e2e/.work
	fi
	exit "$status"
}
log=$(mktemp)
mkdir -p e2e/.work
E2E_CONFIG=$(mktemp -d "$PWD/e2e/.work/config.XXXXXX") # the folder of sessiond's configuration, which a test edits
export E2E_CONFIG
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cp e2e/sessiond.yaml "$E2E_CONFIG"

scripts/redis-image.sh redis:7
echo "e2e: ${compose[*]} up, project $E2E_PROJECT"
if ! { docker build -t "${images[0]}" -f e2e/Dockerfile . && in_project up -d --build; } >"$log" 2>&1; then
	cat "$log" >&2
	fail "the containers did not start"
fi

# In the background, and a process group of its own: so that a signal takes
# everything down at once.
set -m
CGO_ENABLED=0 go test -trimpath -tags e2e -count 1 -timeout 10m -v "$@" ./e2e &
tests=$!
set +m
wait "$tests"
