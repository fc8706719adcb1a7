#!/bin/bash
# Builds the image of the Dockerfile with buildah, which needs no engine. The same commit gives the
# same image and the same archive, octet by octet:
#
#	scripts/image.sh VERSION FILE        writes a tar.gz for `docker load`, and prints the image's ID
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 file=$2
for command in buildah jq; do
	command -v $command >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $command >/dev/null
done

work=$(mktemp -d)
trap 'buildah --root "$work/root" --runroot "$work/run" rmi -a -f >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
store=(--root "$work/root" --runroot "$work/run" --storage-driver vfs)
time=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
buildah "${store[@]}" build --quiet --isolation chroot --format docker --timestamp "$time" \
	--label "org.opencontainers.image.version=$version" \
	--label "org.opencontainers.image.revision=$(git rev-parse HEAD)" \
	--tag sessiond . >/dev/null
buildah "${store[@]}" push --quiet sessiond "docker-archive:$work/built.tar:sessiond:$version" >/dev/null

# Of the format with a health check, buildah writes the name of the container in which it built.
mkdir "$work/image"
tar -xf "$work/built.tar" -C "$work/image"
cd "$work/image"
config=$(jq -r '.[0].Config' manifest.json)
jq -c 'del(.container, .container_config) | .config.Hostname = ""' "$config" >config
digest=$(sha256sum config | cut -d' ' -f1)
mv config "$digest.json"
jq -c --arg config "$digest.json" --arg tag "sessiond:$version" '[{Config: $config, RepoTags: [$tag], Layers: .[0].Layers}]' manifest.json >manifest
mv manifest manifest.json
mapfile -t layers < <(jq -r '.[0].Layers[]' manifest.json)
tar --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner --mode=a=r,u+w --hard-dereference -ch manifest.json "$digest.json" "${layers[@]}" |
	gzip -9n >"$work/image.tar.gz"
cd "$OLDPWD"
mkdir -p "$(dirname "$file")"
mv "$work/image.tar.gz" "$file"
echo "sha256:$digest"
