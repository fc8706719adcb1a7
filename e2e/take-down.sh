#!/bin/bash
# Waits until run.sh has ended, by whatever, and takes down what it started. Called by run.sh, with
# its working directory; standard input ends with run.sh, which writes there the process group that
# it runs, and "keep" where the containers are to stay.
work=$1
group=
while read -r line; do
	case $line in
	keep) keep=1 ;;
	*) group=$line ;;
	esac
done

# What it was about to make must not come behind what is taken down here.
if [ -n "$group" ]; then
	kill -- "-$group" 2>/dev/null
	for _ in {1..100}; do
		kill -0 -- "-$group" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL -- "-$group" 2>/dev/null
fi
[ -z "${keep:-}" ] || exit 0

# take_down PROJECT FILE [OPTION ...] takes down a project, again where the engine was still about to
# start a container of it: that is not stopped, and cannot be removed.
take_down() {
	local project=$1 file=$2 label=label=com.docker.compose.project=$1
	shift 2
	for _ in {1..10}; do
		$E2E_COMPOSE_COMMAND -p "$project" -f "$file" down --volumes --remove-orphans --timeout 5 "$@"
		[ -n "$(docker ps -aq --filter "$label"; docker network ls -q --filter "$label"; docker volume ls -q --filter "$label")" ] || return 0
		sleep 1
	done
	return 1
}

status=0
take_down "$E2E_PROJECT" deploy/lab/compose.yaml || status=1
# What the scenario of docker-compose.yml left, where it did not come to its end.
take_down "$E2E_PROJECT-shipped" docker-compose.yml --rmi local || status=1
docker rmi "$LAB_NAME-labhost" "$LAB_NAME-sessiond" || status=1
rm -rf "$work"
rmdir --ignore-fail-on-non-empty e2e/.work
exit "$status"
