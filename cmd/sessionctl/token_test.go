package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// TestTokenStaysWithin: a token goes to this machine, or over TLS, and nowhere
// else.
func TestTokenStaysWithin(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("\n first-token-of-the-file \nsecond\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for address, sent := range map[string]bool{
		"unix:/run/s": true, "127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true,
		"192.0.2.1:1": false, "localhost.example:1": false, "[::]:1": false, ":1": false,
	} {
		c := connection{address: address, token: file}
		token, err := c.bearer()
		if want := map[bool]bearerToken{true: "first-token-of-the-file"}[sent]; token != want || (err == nil) != sent {
			t.Errorf("%s: %q, %v", address, token, err)
		}
		c.tls.ca = systemCAs
		if token, err := c.bearer(); token == "" || err != nil {
			t.Errorf("%s over TLS: %q, %v", address, token, err)
		}
	}
	if token, err := (&connection{address: "192.0.2.1:1"}).bearer(); token != "" || err != nil {
		t.Errorf("no file: %q, %v", token, err)
	}
}

// TestTokenFile: the token of --token-file counts; a file without one is wrong
// usage.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good", "operator-token-operator-token\n")
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.LocalRole, o.Grants = access.None, []control.Grant{{Role: access.Operator, Name: "o", TokenFile: good}}
	})
	for _, tt := range []struct {
		file, command string
		code          int
		says          string
	}{
		{good, "nas list", exitDone, ""},
		{good, "settings set idle_timeouts.udp=300s --yes", exitRefused, "`grpc.roles` in the daemon's configuration"},
		{"", "nas list", exitRefused, "local_role"},
		{write("other", "another-token-another-token"), "nas list", exitRefused, "SESSIOND_TOKEN_FILE"},
		{write("empty", "\n"), "nas list", exitUsage, "is empty"},
		{filepath.Join(dir, "absent"), "nas list", exitUsage, "no such file"},
	} {
		var stdout, stderr strings.Builder
		args := append([]string{"--addr", server.Address, "--token-file", tt.file}, strings.Fields(tt.command)...)
		code := newApp(strings.NewReader(""), &stdout, &stderr).run(t.Context(), args)
		if code != tt.code || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%s with %s: exit code %d, %s", tt.command, tt.file, code, stderr.String())
		}
		if strings.Contains(stdout.String()+stderr.String(), "token-operator") {
			t.Errorf("%s shows the token: %s", tt.command, stderr.String())
		}
	}
}
