// Package testenv checks the machine for the needs of tests, and starts servers
// for them.
package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// A Need is a requirement that not every machine meets.
type Need uint

// The needs of tests.
const (
	Root        Need = 1 << iota // root, for namespaces and netfilter
	Redis                        // the redis-server command
	Nft                          // the nft command, names of protocols for it, and commands of iproute2
	Conntrack                    // the conntrack command, and connection tracking in the kernel
	Radclient                    // the radclient command (freeradius-utils)
	Radsecproxy                  // the radsecproxy command
	Freeradius                   // the freeradius command
	Pyrad                        // the pyrad library of Debian's own Python
	Tshark                       // the tshark, radsniff and tcpdump commands
	Ocserv                       // the ocserv command, and openconnect to dial it
	Iptables                     // the iptables-nft command
	Traceroute                   // the traceroute command
	Coturn                       // the turnserver and turnutils_natdiscovery commands
	Iperf3                       // the iperf3 command
	Hping3                       // the hping3 command
	Scapy                        // the scapy library of Debian's own Python
	FTP                          // the vsftpd command, with its user ftp, and curl as its client
	SIP                          // the kamailio and sipp commands
	Protoc                       // the protoc command with its gRPC plugin, and gRPC of Debian's own Python
	Yaml                         // the yaml library of Debian's own Python
	Mandoc                       // the mandoc command
	Completions                  // the bash, zsh and fish shells, with bash's completions
	Browser                      // the chromium command
	Promtool                     // the promtool command (package prometheus)
	Nfdump                       // the nfcapd and nfdump commands
	Pmacct                       // the nfacctd command
	Rsyslog                      // the rsyslogd command
	SyslogNG                     // syslog-ng, unpacked at SyslogNGRoot
	Systemd                      // the systemd-analyze command, of systemd 250 or newer
	Natpmpc                      // the natpmpc command
)

// SyslogNGRoot is where setup unpacks syslog-ng, which cannot be installed beside rsyslog.
const SyslogNGRoot = "/usr/local/lib/sessiond-tests/syslog-ng"

// A thing is a command, or a file by its absolute path, with its origin.
type thing struct {
	need Need
	name string
	from string
}

var things = []thing{
	{Redis, "redis-server", ""},
	{Nft, "nft", ""}, {Nft, "ip", ""}, {Nft, "tc", ""}, {Nft, "/etc/protocols", "package netbase"},
	{Conntrack, "conntrack", ""},
	{Conntrack, "/proc/sys/net/netfilter/nf_conntrack_max", "kernel module nf_conntrack"},
	{Radclient, "radclient", ""},
	{Radsecproxy, "radsecproxy", ""},
	{Freeradius, "freeradius", ""},
	{Pyrad, "/usr/lib/python3/dist-packages/pyrad", "package python3-pyrad"},
	{Tshark, "tshark", ""}, {Tshark, "radsniff", ""}, {Tshark, "tcpdump", ""},
	{Ocserv, "ocserv", ""}, {Ocserv, "openconnect", ""}, {Ocserv, "/dev/net/tun", "kernel module tun"},
	{Iptables, "iptables-nft", ""},
	{Traceroute, "traceroute", ""},
	{Coturn, "turnserver", ""}, {Coturn, "turnutils_natdiscovery", ""},
	{Iperf3, "iperf3", ""},
	{Hping3, "hping3", ""},
	{Scapy, "/usr/lib/python3/dist-packages/scapy", "package python3-scapy"},
	{Browser, "chromium", ""}, {Promtool, "promtool", "package prometheus"},
	{FTP, "vsftpd", ""}, {FTP, "curl", ""},
	{SIP, "kamailio", ""}, {SIP, "sipp", ""}, {SIP, "/usr/share/sip-tester/g711a.pcap", "package sip-tester"},
	{Protoc, "protoc", "package protobuf-compiler"}, {Protoc, "/usr/bin/grpc_python_plugin", "package protobuf-compiler-grpc"},
	{Protoc, "/usr/include/google/protobuf/timestamp.proto", "package libprotobuf-dev"},
	{Protoc, "/usr/lib/python3/dist-packages/grpc", "package python3-grpcio"},
	{Protoc, "/usr/lib/python3/dist-packages/google/protobuf", "package python3-protobuf"},
	{Yaml, "/usr/lib/python3/dist-packages/yaml", "package python3-yaml"},
	{Mandoc, "mandoc", ""},
	{Completions, "/usr/share/bash-completion/bash_completion", "package bash-completion"},
	{Completions, "zsh", ""}, {Completions, "fish", ""},
	{Nfdump, "nfcapd", ""}, {Nfdump, "nfdump", ""},
	{Pmacct, "nfacctd", "package pmacct"},
	{Rsyslog, "rsyslogd", "package rsyslog"},
	{Systemd, "systemd-analyze", "package systemd"},
	{Natpmpc, "natpmpc", ""},
	{SyslogNG, SyslogNGRoot + "/usr/sbin/syslog-ng", "package syslog-ng-core"},
}

// Require skips the test if the machine lacks one of the needs. With CI set it
// fails the test instead, because a skip would hide a test that never runs.
func Require(t testing.TB, needs Need) {
	t.Helper()
	missing := lacking(needs)
	if len(missing) == 0 {
		return
	}
	Lacks(t, strings.Join(missing, ", "))
}

// Lacks skips the test, or with CI set fails it, because the machine lacks a thing that the test
// itself has looked for.
func Lacks(t testing.TB, thing string) {
	t.Helper()
	reason := "this machine lacks " + thing
	if os.Getenv("CI") != "" {
		t.Fatal(reason + ", and a skip is a failure when CI is set")
	}
	t.Skip(reason)
}

func lacking(needs Need) []string {
	var missing []string
	if needs&Root != 0 && os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, thing := range things {
		if needs&thing.need == 0 || present(thing.name) {
			continue
		}
		name := thing.name
		if thing.from != "" {
			name += " (" + thing.from + ")"
		}
		missing = append(missing, name)
	}
	return missing
}

func present(name string) bool {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return err == nil
	}
	_, err := exec.LookPath(name)
	return err == nil
}

// Eventually waits up to 10 s for a condition, and fails the test where it never holds.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	Succeeds(t, func() error {
		if !holds() {
			return fmt.Errorf("never came true: %s", what)
		}
		return nil
	})
}

// Succeeds waits up to 10 s until check returns no error, and fails the test with its last
// error. It may be called in a cleanup.
func Succeeds(t testing.TB, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		if clock.Sleep(ctx, 5*time.Millisecond) != nil {
			t.Fatal(err)
		}
	}
}
