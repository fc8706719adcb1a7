#!/bin/sh
# Generates the Go code of the API, and docs/api.md, from its .proto files. With --baseline it also
# makes the present API the one that later changes must not break; do that only
# with a release.
set -eu
cd "$(dirname "$0")/.."

go tool -modfile=tools/go.mod buf generate
if [ "${1:-}" = --baseline ]; then
	go tool -modfile=tools/go.mod buf build --exclude-source-info --output api/proto/baseline.binpb
fi
