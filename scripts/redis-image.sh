#!/bin/bash
# Makes a local image under Redis's public name from this machine's redis-server
# (Debian packages redis-server and redis-tools), for engines that can pull none.
# Does nothing when the image is there.
#
#	scripts/redis-image.sh [IMAGE]        default: redis:7, as in docker-compose.yml
set -euo pipefail
image=${1:-redis:7}
export PATH=$PATH:/usr/sbin:/sbin

if docker image inspect "$image" >/dev/null 2>&1; then
	exit 0
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

# libraries prints the paths of the shared libraries and the loader of a program.
libraries() {
	ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
}

for program in redis-server redis-cli; do
	path=$(command -v "$program") || {
		echo "redis-image: no $program here; run scripts/setup-debian.sh" >&2
		exit 1
	}
	install -D "$path" "$root/usr/bin/$program"
	for library in $(libraries "$path"); do
		install -D "$library" "$root$library"
	done
done
install -d "$root/data"
install -d -m 1777 "$root/tmp"

tar -C "$root" --owner 0 --group 0 --numeric-owner -c . |
	docker import \
		--change 'ENV PATH=/usr/bin' \
		--change 'WORKDIR /data' \
		--change 'VOLUME /data' \
		--change 'EXPOSE 6379' \
		--change 'CMD ["redis-server"]' \
		--message "made from this machine's redis-server" \
		- "$image" >/dev/null
echo "redis-image: made $image from $(redis-server --version | cut -d' ' -f1-3)"
