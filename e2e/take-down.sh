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

status=0
$E2E_COMPOSE down --volumes --remove-orphans --timeout 5 || status=1
# What the scenario of docker-compose.yml left, where it did not come to its end.
$E2E_COMPOSE_COMMAND -p "$E2E_PROJECT-shipped" -f docker-compose.yml down --volumes --rmi local --timeout 5 || status=1
docker rmi "$LAB_NAME-labhost" "$LAB_NAME-sessiond" || status=1
rm -rf "$work"
rmdir --ignore-fail-on-non-empty e2e/.work
exit "$status"
