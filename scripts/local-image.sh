#!/bin/bash
# Makes local images under public names from this machine's Debian packages (redis-server and
# redis-tools, prometheus), for engines that can pull none. An image that is there stays.
#
#	scripts/local-image.sh IMAGE ...        redis:* and prom/prometheus:*
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# libraries prints the paths of the shared libraries and the loader of a program.
libraries() {
	ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
}

# make IMAGE CHANGE PROGRAM ...: an image of programs and their libraries.
make() {
	local image=$1 change=$2 program path library changes=()
	shift 2
	for program; do
		path=$(command -v "$program") || {
			echo "local-image: no $program here; run scripts/setup-debian.sh" >&2
			exit 1
		}
		install -D "$path" "$root/usr/bin/$program"
		for library in $(libraries "$path"); do
			install -D "$library" "$root$library"
		done
	done
	install -d -m 755 "$root" "$root/data"
	install -d -m 1777 "$root/tmp"
	while read -r line; do
		changes+=(--change "$line")
	done <<<"$change"
	tar -C "$root" --owner 0 --group 0 --numeric-owner -c . |
		docker import "${changes[@]}" --message "made from this machine's $1" - "$image" >/dev/null
	echo "local-image: made $image from this machine's $1"
	rm -rf "${root:?}"/*
}

for image; do
	if docker image inspect "$image" >/dev/null 2>&1; then
		continue
	fi
	case $image in
	redis:*)
		make "$image" 'ENV PATH=/usr/bin
WORKDIR /data
VOLUME /data
EXPOSE 6379
CMD ["redis-server"]' redis-server redis-cli
		;;
	prom/prometheus:*)
		make "$image" 'ENV PATH=/usr/bin
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]' prometheus
		;;
	*)
		echo "local-image: no recipe for $image" >&2
		exit 2
		;;
	esac
done
