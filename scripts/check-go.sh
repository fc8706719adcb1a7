#!/bin/sh
# Says how to get the Go that go.mod asks for, where the one in PATH is too old: such a Go fails
# with a line about the form of a version. From 1.21 on Go fetches the right one by itself, unless
# GOTOOLCHAIN forbids it.
# Usage: scripts/check-go.sh [GO]
set -eu
cd "$(dirname "$0")/.."
go=${1:-go}
needed=$(sed -n 's/^go //p' go.mod)

fail() {
	cat >&2 <<-END
	sessiond needs Go $needed or newer: $*
	Debian 12's own golang package is 1.19, which is too old. Get it from https://go.dev/dl/:

	    curl -fsSLO https://go.dev/dl/go$needed.linux-$(dpkg --print-architecture 2>/dev/null || echo amd64).tar.gz
	    rm -rf /usr/local/go && tar -C /usr/local -xzf go$needed.linux-*.tar.gz
	    export PATH=/usr/local/go/bin:\$PATH

	END
	exit 1
}

command -v "$go" >/dev/null || fail "there is no $go in PATH"
# In another directory: here a newer Go would fetch the wanted one, and say that it is it.
have=$(cd / && GOTOOLCHAIN=local "$go" version) || fail "$go does not say its version"
have=$(echo "$have" | sed -n 's/^go version go\([0-9][0-9.]*\).*/\1/p')
[ -n "$have" ] || exit 0 # one that somebody built
at_least() { [ "$(printf '%s\n%s\n' "$1" "$have" | sort -V | head -n 1)" = "$1" ]; }
at_least "$needed" && exit 0
at_least 1.21 && [ "${GOTOOLCHAIN:-auto}" != local ] && exit 0
fail "$(command -v "$go") is $have"
