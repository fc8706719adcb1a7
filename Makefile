# The commands of the README. Each installs what it needs on a bare Debian 12
# machine with Go, make and git, as root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin
GO ?= go
# All that is built without -race is built alike, so that it is compiled once.
ALIKE := CGO_ENABLED=0 GOFLAGS=-trimpath
TOOL := $(ALIKE) $(GO) tool -modfile=tools/go.mod
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
DATE ?= $(shell git log -1 --format=%cs 2>/dev/null || date +%F)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: build demo test soak verify bench conformance e2e deb deb-test image release setup generate fuzz man clean check-go

## build: bin/sessiond, bin/sessionctl and bin/acctload, static
build: check-go
	$(ALIKE) $(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

## demo: the main job in a lab of network namespaces, each step shown
demo: setup build
	bin/demo --sessiond bin/sessiond --sessionctl bin/sessionctl

# The packages whose tests take longest, which begin first. Most wait more than they compute, so
# three run at a time.
LONGEST := ./internal/session ./test/field ./test/system ./internal/nftnat ./internal/subscriberdb ./test/faults ./test/interop

## test: every test, the kernel and Redis ones too; skips are listed at the end
test: setup
	$(TOOL) gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --raw-command -- \
		env CGO_ENABLED=1 GOFLAGS= $(GO) test -json -race -vet=off -count=1 -timeout 15m -p 3 $(LONGEST) ./...

## soak: FAULTS random faults (default 1000), in worlds with seeds from SEED on, as many
## flushes of nftables under traffic and kills within audited changes, and 100 discoveries of
## each kind by coturn and pion/stun
FAULTS ?= 1000
SEED ?= $(shell date +%s)
soak: setup
	STUN_RUNS=100 $(GO) test -count=1 -timeout 1h -v ./internal/nftnat -run 'TestNATDiscovery|TestSTUN'
	KILLS=$(FAULTS) SOAK=1 $(GO) test -count=1 -timeout 1h -v ./internal/subscriberdb -run 'TestKilledWithinOrders|TestHistories|TestFastScripts'
	SOAK=1 $(GO) test -count=1 -timeout 1h ./internal/lifecycle ./internal/lsn ./internal/subscriber
	SOAK=1 $(GO) test -count=1 -timeout 1h -v ./internal/session -run 'TestRandom|TestLists'
	SOAK=1 $(GO) test -count=1 -timeout 1h -v ./internal/history -run TestRandomHistories
	SOAK=1 $(GO) test -count=1 -timeout 1h -v ./test/interop -run TestPortmapper
	FLUSHES=$(FAULTS) $(GO) test -count=1 -timeout 1h -v ./internal/nftnat -run TestFlushes
	$(GO) test -count=1 -timeout 24h -v ./test/faults -run TestFaults -args -faults $(FAULTS) -each 50 -first $(SEED)

## verify: formatting, vet, staticcheck, generated code, go.mod, protobuf
verify: check-go
	scripts/verify.sh

## bench: the benchmarks, beside the peers they name
bench: setup
	scripts/bench.sh

## conformance: what RFCs and the field ask, and what the tests of each item show; written
## to docs/conformance.md too
conformance: setup
	$(GO) run ./test/conformance/report -o docs/conformance.md

## e2e: the scenarios of e2e/scenarios across containers
e2e: setup build
	e2e/run.sh

## fuzz: every fuzz target for FUZZTIME each (default 30s)
fuzz: check-go
	scripts/fuzz.sh $(or $(FUZZTIME),30s)

setup: check-go
	@scripts/setup-debian.sh

check-go:
	@scripts/check-go.sh $(GO)

## man: the manual pages, in bin/man
man: build
	mkdir -p bin/man
	bin/sessionctl man --date '$(DATE)' >bin/man/sessionctl.1
	$(GO) run ./internal/manpage/write --sessiond bin/sessiond --version '$(VERSION)' --date '$(DATE)' -o bin/man

## deb: the Debian package, in dist
deb: build
	scripts/deb.sh '$(VERSION)' dist

## image: the container image, in dist
image: build
	scripts/image.sh '$(VERSION)' 'dist/sessiond-image-$(VERSION).tar.gz'

## release: package, image, modules with licences, and signed checksums, in dist; SIGNING_KEY=FILE
release: build
	scripts/release.sh '$(VERSION)' dist

## deb-test: the package on a bare Debian 12: install, upgrade, downgrade, purge, the demo
deb-test: setup build
	scripts/deb-test.sh

## generate: the Go code of api/proto, and docs/api.md
generate: check-go
	$(TOOL) buf generate

clean:
	rm -rf bin dist
