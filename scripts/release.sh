#!/bin/bash
# Writes a release into a folder: the Debian package, the image, a list of the modules in each
# program with their licences (CycloneDX), and signed checksums:
#
#	SIGNING_KEY=FILE scripts/release.sh VERSION FOLDER        needs bin/* of `make build`
#
# SIGNING_KEY is a key of ssh-keygen(1): its private file, or its public one where ssh-agent or a
# token has the other. docs/install.md says how to verify.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 folder=$2
export PATH=$PATH:/usr/local/go/bin CGO_ENABLED=0 GOFLAGS=-trimpath
[ -r "${SIGNING_KEY:-}" ] || {
	echo "release: SIGNING_KEY names no file. Make a key with: ssh-keygen -t ed25519 -f release-key" >&2
	exit 1
}
signing_key=$(realpath "$SIGNING_KEY")
rm -rf "$folder"
mkdir -p "$folder"
scripts/deb.sh "$version" "$folder"
scripts/image.sh "$version" "$folder/sessiond-image-$version.tar.gz"

# modules_of lists the modules in a program, each with its licence; the scanner knows not all texts.
modules_of() {
	local raw
	raw=$(mktemp)
	go tool -modfile=tools/go.mod cyclonedx-gomod bin -json -licenses -noserial -version "$version" -output "$raw" "bin/$1"
	jq --arg time "$(date -u -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" +%FT%TZ)" '.metadata.timestamp = $time
		| (.components[] | select(.name == "go.etcd.io/bbolt")).evidence.licenses = [{license: {id: "MIT"}}]' "$raw"
	rm "$raw"
}
for program in sessiond sessionctl; do
	modules_of "$program" >"$folder/$program-sbom.cdx.json"
	jq -e 'all(.components[]; .evidence.licenses // .licenses | length > 0)' "$folder/$program-sbom.cdx.json" >/dev/null || {
		echo "release: a module in $program has no licence that is known: name it in scripts/release.sh" >&2
		exit 1
	}
done
cd "$folder"
sha256sum -- * >SHA256SUMS
ssh-keygen -Y sign -q -f "$signing_key" -n sessiond-release SHA256SUMS
ls -l
