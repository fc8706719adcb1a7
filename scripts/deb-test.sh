#!/bin/bash
# Tests the Debian package (package test/deb): installs it on a bare Debian 12 root under systemd,
# upgrades, downgrades, removes and purges it, and runs the demo under its service.
#
#	scripts/deb-test.sh [go test flags]        needs root, and bin/* of `make build`
#
# The root is made once, and kept in DEB_CACHE (default /var/cache/sessiond-tests).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
cache=${DEB_CACHE:-/var/cache/sessiond-tests}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for command in mmdebstrap:mmdebstrap systemd-nspawn:systemd-container lintian:lintian; do
	command -v "${command%%:*}" >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${command##*:}" >/dev/null
done

# Two versions of the same programs, as the one before and the one after an upgrade.
for version in v0.0.1 v0.0.2; do
	debs+=("$(scripts/deb.sh $version "$work" 2>"$work/log")") || { cat "$work/log" >&2; exit 1; }
done

# make_root makes a bare Debian 12, with the packages in apt's cache that the test's apt will
# install: the test's network leads nowhere.
make_root() {
	local mirror=http://deb.debian.org/debian suite=bookworm
	mkdir -p "$cache"
	mmdebstrap --quiet --variant=important --include=ca-certificates \
		--customize-hook='upload "'"$1"'" /tmp/sessiond.deb' \
		--customize-hook='chroot "$1" apt-get update -qq' \
		--customize-hook='DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get install -y -qq --download-only /tmp/sessiond.deb' \
		--customize-hook='rm "$1/tmp/sessiond.deb"' \
		--skip=cleanup/apt/cache --skip=cleanup/apt/lists \
		$suite "$cache/new.tar" \
		"deb $mirror $suite main" "deb $mirror $suite-updates main" "deb http://deb.debian.org/debian-security $suite-security main"
	mv "$cache/new.tar" "$cache/debian12.tar"
}
[ -e "$cache/debian12.tar" ] || make_root "${debs[0]}"

DEB_ROOT=$cache/debian12.tar DEB_OLDER=${debs[0]} DEB_NEWER=${debs[1]} DEB_PROGRAMS=$PWD/bin \
	go test -count 1 -timeout 20m -v "$@" ./test/deb
