#!/bin/bash
# Installs the Debian packages whose commands `make demo`, `make test` and
# `make e2e` run, where they are missing, and loads the kernel modules that the tests
# work with. Quick and silent when all is there.
# A Docker engine is for the operator to choose; make e2e says when none answers.
set -euo pipefail
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin

# command, or path of a file, and its package
needed=(
	redis-server:redis-server
	redis-cli:redis-tools
	nft:nftables
	/etc/protocols:netbase # without it nft and conntrack know protocols by number only
	conntrack:conntrack
	iptables-nft:iptables
	ip:iproute2
	tc:iproute2
	modprobe:kmod
	gcc:gcc # for go test -race
	/usr/include/stdlib.h:libc6-dev
	tcpdump:tcpdump
	ps:procps
	sysctl:procps
	radclient:freeradius-utils
	radsniff:freeradius-utils
	radsecproxy:radsecproxy
	freeradius:freeradius
	/usr/lib/freeradius/rlm_rediswho.so:freeradius-redis
	tshark:tshark
	/usr/lib/python3/dist-packages/pyrad:python3-pyrad
	ocserv:ocserv
	openconnect:openconnect
	turnserver:coturn
	turnutils_natdiscovery:coturn
	git:git
	openssl:openssl # for the commands of docs/operations.md
	traceroute:traceroute
	iperf3:iperf3
	hping3:hping3
	/usr/lib/python3/dist-packages/scapy:python3-scapy
	vsftpd:vsftpd
	curl:curl
	kamailio:kamailio
	sipp:sip-tester
	/usr/share/sip-tester/g711a.pcap:sip-tester # the caller's media
	protoc:protobuf-compiler # for the examples of docs/integrators.md
	/usr/bin/grpc_python_plugin:protobuf-compiler-grpc
	/usr/include/google/protobuf/timestamp.proto:libprotobuf-dev
	/usr/lib/python3/dist-packages/grpc:python3-grpcio
	/usr/lib/python3/dist-packages/google/protobuf:python3-protobuf
	/usr/lib/python3/dist-packages/yaml:python3-yaml
	mandoc:mandoc
	/usr/share/bash-completion/bash_completion:bash-completion
	zsh:zsh
	fish:fish
	chromium:chromium
	promtool:prometheus
	nfcapd:nfdump
	nfdump:nfdump
	nfacctd:pmacct
	rsyslogd:rsyslog
	systemd-analyze:systemd
	natpmpc:natpmpc
)

# syslog-ng cannot be installed beside rsyslog, so it is unpacked with the libraries that only
# it needs.
unpacked=/usr/local/lib/sessiond-tests/syslog-ng
unpacked_packages=(syslog-ng-core libivykis0 libnet1)

# Most are loaded on demand where that is allowed. The sysctls of conntrack are there only
# once it is loaded, and tests set them before anything else loads it.
modules=(
	veth dummy tun
	nf_conntrack_ftp nf_nat_ftp
	nf_conntrack nf_conntrack_netlink nfnetlink_cttimeout
	nf_tables nft_chain_nat nf_nat nft_nat nft_masq nft_redir nft_ct nft_limit nft_fib_ipv4 nft_compat xt_CT
	sch_ingress cls_bpf
)

fail() {
	echo "setup-debian: $*" >&2
	exit 1
}

missing() {
	local entry
	for entry in "${needed[@]}"; do
		command -v "${entry%%:*}" >/dev/null || [ -e "${entry%%:*}" ] || echo "${entry##*:}"
	done | sort -u
}

# no_service keeps the packages' daemons from being started. An answer of 101 is
# "forbidden by policy" (invoke-rc.d). A policy that is there already stays.
no_service() {
	policy=/usr/sbin/policy-rc.d
	if [ -e "$policy" ]; then
		return
	fi
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
}

install_packages() {
	no_service
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq || echo "setup-debian: apt-get update failed, going on with what is known" >&2
	apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
		fail "could not install: $*"
	disable_services "$@"
}

# disable_services keeps what has just been installed from starting with the
# machine. A package of commands only has no service, and that is fine; some have several.
disable_services() {
	command -v systemctl >/dev/null || return 0
	local unit
	for unit in $(dpkg -L "$@" | grep -E '^(/usr)?/lib/systemd/system/[^/@]+\.service$'); do
		systemctl disable "$(basename "$unit")" >/dev/null 2>&1 || true
	done
}

# unpack_syslog_ng unpacks it beside its place, and moves it there once it is whole.
unpack_syslog_ng() {
	local work archive
	[ -x "$unpacked/usr/sbin/syslog-ng" ] && return 0
	[ "$(id -u)" = 0 ] || fail "must be root to unpack syslog-ng to $unpacked"
	echo "setup-debian: unpacking ${unpacked_packages[*]}"
	work=$(mktemp -d)
	chown _apt "$work" 2>/dev/null || true
	(cd "$work" && apt-get download -qq "${unpacked_packages[@]}" >/dev/null) ||
		fail "could not download: ${unpacked_packages[*]}"
	mkdir "$work/root"
	for archive in "$work"/*.deb; do
		dpkg-deb -x "$archive" "$work/root"
	done
	mkdir -p "$(dirname "$unpacked")"
	rm -rf "$unpacked"
	mv "$work/root" "$unpacked"
	rm -rf "$work"
}

# load_modules loads what is not built in. A machine without a folder of modules, such as
# a container, has what it has: a test that lacks one says which.
load_modules() {
	local folder module lacking=()
	folder=/lib/modules/$(uname -r)
	[ -d "$folder" ] && [ "$(id -u)" = 0 ] || return 0
	for module in "${modules[@]}"; do
		[ -d "/sys/module/$module" ] || modprobe -q "$module" 2>/dev/null || lacking+=("$module")
	done
	[ ${#lacking[@]} -eq 0 ] ||
		echo "setup-debian: this kernel lacks modules, some tests will fail: ${lacking[*]}" >&2
}

command -v go >/dev/null || fail "Go is missing: install it from https://go.dev/dl/ (the version is in go.mod)"
mapfile -t packages < <(missing)
if [ ${#packages[@]} -gt 0 ]; then
	command -v apt-get >/dev/null ||
		fail "this is no Debian; install by other means what has these packages' commands: ${packages[*]}"
	[ "$(id -u)" = 0 ] || fail "must be root to install: ${packages[*]}"
	echo "setup-debian: installing ${packages[*]}"
	install_packages "${packages[@]}"
	mapfile -t packages < <(missing)
	[ ${#packages[@]} -eq 0 ] || fail "still missing after installation: ${packages[*]}"
fi
unpack_syslog_ng
load_modules
