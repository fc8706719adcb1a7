package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLookupWithoutDeterministicMode: the configuration alone cannot answer, and the command says
// who can.
func TestLookupWithoutDeterministicMode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sessiond.yaml")
	if err := os.WriteFile(file, []byte(`radius: {clients: [{name: bng1, prefix: 127.0.0.1/32, secret: testing123}]}
nat: {backend: memory}
groups: [{name: dynamic, inside: [10.0.0.0/24], outside: [203.0.113.0/30]}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"203.0.113.1:2048": "is in deterministic mode; the daemon knows: sessionctl binding lookup 203.0.113.1:2048\n",
		"10.0.0.7":         "is in deterministic mode; the daemon knows: sessionctl binding list --inside 10.0.0.7\n",
	} {
		var out bytes.Buffer
		if code := run(t.Context(), []string{"--config", file, "--deterministic", what}, nil, &out, &out); code != exitFailed || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit %d, want %d: %s", what, code, exitFailed, out.String())
		}
	}
}

// TestDeterministicLookup: both directions from the configuration alone.
func TestDeterministicLookup_NAT38(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sessiond.yaml")
	if err := os.WriteFile(file, []byte(`radius: {clients: [{name: bng1, prefix: 127.0.0.1/32, secret: testing123}]}
nat: {backend: memory}
groups:
  - {name: dynamic, inside: [10.0.0.0/24], outside: [203.0.113.0/30]}
  - {name: fixed, inside: [100.64.0.0/26, 100.65.0.0/27], outside: [198.51.100.0/31], block_size: 1024, port_range: 1024-65535, deterministic: true}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		what string
		code int
		want string
	}{
		{"100.64.0.0", exitDone, "group fixed: inside address 100.64.0.0 has 198.51.100.0:1024-2047\n"},
		{"100.64.0.63", exitDone, "group fixed: inside address 100.64.0.63 has 198.51.100.1:1024-2047\n"},
		{"100.65.0.2", exitDone, "group fixed: inside address 100.65.0.2 has 198.51.100.1:4096-5119\n"},
		{"198.51.100.1:5000", exitDone, "group fixed: inside address 100.65.0.2 has 198.51.100.1:4096-5119\n"},
		{"198.51.100.0:1023", exitFailed, "no group in deterministic mode has 198.51.100.0:1023"},
		{"203.0.113.1:2048", exitFailed, "no group in deterministic mode has 203.0.113.1:2048"},
		{"10.0.0.7", exitFailed, "group dynamic of 10.0.0.7 is not in deterministic mode"},
		{"192.0.2.1", exitFailed, "no group in deterministic mode has 192.0.2.1"},
		{"alice", exitUsage, "neither an inside address nor a public address and port"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), []string{"--config", file, "--deterministic", one.what}, nil, &out, &out); code != one.code || !strings.Contains(out.String(), one.want) {
			t.Errorf("%s: exit %d, want %d: %s", one.what, code, one.code, out.String())
		}
	}
}
