package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"layeh.com/radius"
)

const secret = "testing123"

// server answers accounting until the test ends. With an answer secret other
// than the client's, it adds bad replies.
func server(t *testing.T, answer string) string {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, radius.MaxPacketLength)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			p, err := radius.Parse(buf[:n], []byte(secret))
			if err != nil {
				t.Error(err)
				return
			}
			for _, key := range []string{secret, answer} {
				p.Secret = []byte(key)
				reply, err := p.Response(radius.CodeAccountingResponse).Encode()
				if err != nil {
					t.Error(err)
				}
				if _, err := conn.WriteToUDPAddrPort(reply, from); err != nil {
					return
				}
			}
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	return conn.LocalAddr().String()
}

// invoke runs the command.
func invoke(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func short(server string, more ...string) []string {
	return append([]string{
		server, "--secret", secret, "--duration", "200ms", "--warmup", "50ms",
		"--subscribers", "100", "--concurrency", "8",
	}, more...)
}

func TestText(t *testing.T) {
	code, out, errs := invoke(short(server(t, secret), "--strict")...)
	if code != exitDone || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{"mix of ", "8 outstanding", "0 lost", "p99.9", "interim", "all"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestJSON(t *testing.T) {
	code, out, _ := invoke(short(server(t, secret), "-o", "json", "--scenario", "start", "--attribute", "87=0x6161")...)
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitDone {
		t.Fatalf("exit code %d, %v in %s", code, err, out)
	}
	if r.Scenario != "start" || r.Rate <= 0 || r.Answered != r.Latency.Count || r.Kinds["start"].Max <= 0 {
		t.Errorf("report is %+v", r)
	}
}

func TestStrict(t *testing.T) {
	bad := server(t, "another")
	if code, _, _ := invoke(short(bad)...); code != exitDone {
		t.Errorf("exit code %d without --strict", code)
	}
	if code, _, errs := invoke(short(bad, "--strict")...); code != exitFailed || !strings.Contains(errs, "bad") {
		t.Errorf("exit code %d with --strict, stderr %q", code, errs)
	}
}

func TestNobodyAnswers(t *testing.T) {
	code, _, errs := invoke(short("127.0.0.1:9", "--timeout", "5ms")...)
	if code != exitFailed || !strings.Contains(errs, "does not answer") {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"127.0.0.1"},
		{"127.0.0.1", "--secret", "s", "--secret-file", "f"},
		{"127.0.0.1", "--secret-file", "/does/not/exist"},
		{"127.0.0.1", "--secret", "s", "--scenario", "storm"},
		{"127.0.0.1", "--secret", "s", "-o", "xml"},
		{"127.0.0.1", "--secret", "s", "--inside", "100.64.0.0"},
		{"127.0.0.1", "--secret", "s", "--nas-address", "bng"},
		{"127.0.0.1", "--secret", "s", "--attribute", "300=x"},
		{"127.0.0.1", "--secret", "s", "--attribute", "1=0xz"},
		{"127.0.0.1", "--secret", "s", "--rate", "10", "--concurrency", "10"},
		{"127.0.0.1", "--secret", "s", "--subscribers", "1"},
		{"127.0.0.1:port", "--secret", "s"},
		{"127.0.0.1", "--no-such-flag"},
	} {
		if code, _, errs := invoke(args...); code != exitUsage || strings.Count(errs, "acctload: ") != 1 {
			t.Errorf("%q: exit code %d, stderr %q", args, code, errs)
		}
	}
	for _, args := range [][]string{{"--help"}, {"--version"}} {
		if code, out, _ := invoke(args...); code != exitDone || !strings.Contains(out, "acctload") {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

func TestServerAndSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hidden\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:1813", "192.0.2.1:2000": "192.0.2.1:2000",
		"2001:db8::1": "[2001:db8::1]:1813", "[2001:db8::1]:9": "[2001:db8::1]:9",
	} {
		c, err := parse([]string{server, "--secret-file", file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.options.Server.String() != want || string(c.options.Secret) != "hidden" {
			t.Errorf("%s: %v, secret %q", server, c.options.Server, c.options.Secret)
		}
	}
}
