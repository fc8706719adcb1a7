#!/bin/sh
# Checks everything about the sources that needs no test run: formatting, vet,
# staticcheck, generated code, module files and the API's wire compatibility.
# Runs all checks even when one fails, and fails if any did.
set -u
cd "$(dirname "$0")/.." || exit 1
export CGO_ENABLED=0 GOFLAGS=-trimpath # as make build: what is built once serves both

baseline=api/proto/baseline.binpb
failed=""
temp=$(mktemp -d) || exit 1
trap 'rm -rf "$temp"' EXIT

tool() { go tool -modfile=tools/go.mod "$@"; }

check() {
	name=$1
	shift
	printf '%-28s' "$name"
	if "$@" >"$temp/log" 2>&1; then
		echo ok
	else
		echo FAILED
		sed 's/^/    /' "$temp/log"
		failed="$failed $name"
	fi
}

formatted() {
	unformatted=$(gofmt -l .) || return 1
	[ -z "$unformatted" ] || { echo "run gofmt -w on:"; echo "$unformatted"; return 1; }
}

generated() {
	tool buf generate --output "$temp/generated" || return 1
	diff -r -x '*.proto' -x '*.binpb' "$temp/generated/api/proto" api/proto &&
		diff "$temp/generated/docs/api.md" docs/api.md ||
		{ echo "run scripts/generate.sh"; return 1; }
}

tidy_tools() { (cd tools && go mod tidy -diff); }

check gofmt formatted
check "go vet" go vet -tags e2e ./...
check staticcheck tool staticcheck -tags e2e ./...
check "generated code is current" generated
check "go.mod is tidy" go mod tidy -diff
check "tools/go.mod is tidy" tidy_tools
check "proto lint" tool buf lint
check "proto format" tool buf format --diff --exit-code
check "proto breaking" tool buf breaking --against "$baseline"

if [ -n "$failed" ]; then
	echo "failed:$failed"
	exit 1
fi
