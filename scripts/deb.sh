#!/bin/bash
# Builds the Debian package of bin/sessiond and bin/sessionctl, for this machine's architecture:
#
#	scripts/deb.sh VERSION FOLDER        prints the file's name
#
# The same commit gives the same package, octet by octet.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 folder=$2
export PATH=$PATH:/usr/local/go/bin

# debian_version makes a version of Debian of `git describe`: v1.2-rc1 is before 1.2, v1.2-3-gabc
# behind it, and a commit without a tag before all releases.
debian_version() {
	local v=${1#v}
	if [[ $v != [0-9]*.* ]]; then
		v=0~git$(git log -1 --format=%cd --date=format:%Y%m%d%H%M%S).$v
	else
		v=${v/-rc/\~rc}
		v=$(sed -E 's/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/' <<<"$v")
	fi
	echo "${v//-/+}"
}

WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
DEB_VERSION=$(debian_version "$version")
ARCH=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH DEB_VERSION ARCH
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)

zip() { gzip -9n >"$WORK/$1.gz"; }
bin/sessionctl man --date "$date" | zip sessionctl.1
CGO_ENABLED=0 GOFLAGS=-trimpath go run ./internal/manpage/write --sessiond bin/sessiond --version "$version" --date "$date" -o "$WORK/man"
zip sessiond.8 <"$WORK/man/sessiond.8"
zip sessiond.yaml.5 <"$WORK/man/sessiond.yaml.5"
for shell in bash zsh fish; do
	bin/sessionctl completion "$shell" >"$WORK/$shell"
done
zip reference.yaml <sessiond.example.yaml
zip changelog <CHANGELOG.md
zip changelog.Debian <<END
sessiond ($DEB_VERSION) stable; urgency=medium

  * The changes are in changelog.gz, beside this file.

 -- The sessiond authors <sessiond@users.noreply.github.com>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
cat >"$WORK/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: sessiond
Source: https://github.com/sessiond/sessiond
Comment: The programs have modules of others in them. The file sbom.cdx.json of a release
 names each with its licence.

Files: *
Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) The sessiond authors
License: Apache-2.0
 On Debian systems the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
END
mkdir -p "$folder"
file=$folder/sessiond_${DEB_VERSION}_$ARCH.deb
CGO_ENABLED=0 GOFLAGS=-trimpath go tool -modfile=tools/go.mod nfpm package -f deploy/debian/nfpm.yaml -p deb -t "$file" >&2
echo "$file"
