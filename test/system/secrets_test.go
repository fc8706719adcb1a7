package system

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestSecretsAreNowhere: the shared secret, a token, the password of Redis and the keys of gRPC and
// RadSec are in no log line at any level, no error, no output of --check, no status, no list of
// settings, no page, no key of Redis and no metric: not while all is well, not for calls and files
// that are wrong, and not while Redis is away or refuses the password.
func TestSecretsAreNowhere(t *testing.T) {
	const token, password = "planted-token-planted-token", "planted-password"
	certs, forRadSec := controltest.MakeCerts(t), controltest.MakeCerts(t)
	w := start(t, rig.Options{Memory: true, RadSec: fmt.Sprintf("listen: [%q], cert_file: %q, key_file: %q, client_ca_file: %q",
		"127.0.0.1:0", forRadSec.Server, forRadSec.ServerKey, forRadSec.CA)})
	key, err := os.ReadFile(certs.ServerKey)
	w.must(err)
	radsecKey, err := os.ReadFile(forRadSec.ServerKey)
	w.must(err)
	planted := []string{rig.Secret, token, password, strings.Split(string(key), "\n")[1], strings.Split(string(radsecKey), "\n")[1]}
	w.redis("ACL", "SETUSER", "planted", "on", ">"+password, "~*", "&*", "+@all")
	write := func(file, text string) {
		t.Helper()
		w.must(os.WriteFile(file, []byte(text), 0o600))
	}
	tokenFile, keyFile := filepath.Join(w.Dir, "noc.token"), filepath.Join(w.Dir, "key")
	write(tokenFile, token+"\n")
	write(keyFile, string(key))
	var seen strings.Builder
	note := func(out string, err error) {
		seen.WriteString(out)
		if err != nil {
			seen.WriteString(err.Error())
		}
		seen.WriteString("\n")
	}
	good := ""
	w.must(w.Daemon.Edit(func(config string) string {
		config = strings.Replace(config, "unix://", "unix://planted:"+password+"@", 1)
		before, after, _ := strings.Cut(config, `grpc: {listen: "`)
		socket, rest, _ := strings.Cut(after, `"`)
		good = before + `grpc: {listen: "127.0.0.1:0", socket: "` + strings.TrimPrefix(socket, "unix:") + `", tls: {cert_file: "` + certs.Server +
			`", key_file: "` + keyFile + `"}, roles: [{role: operator, token_file: "` + tokenFile + `"}]` + rest
		return good
	}))
	if !strings.Contains(good, "planted:"+password+"@") {
		t.Fatal("the password is not in the configuration")
	}
	_, err = w.Daemon.Stop()
	w.must(err)
	note(w.Daemon.Log(), nil)
	w.must(w.Daemon.Start(w.ctx))
	w.online(sessionOf(alice, "a-1"))

	// Calls with the token, and with wrong ones.
	wrong := filepath.Join(w.Dir, "wrong.token")
	write(wrong, token+token)
	for _, file := range []string{tokenFile, wrong, keyFile} {
		for _, args := range [][]string{{"status"}, {"subscriber", "delete", "--yes", bob.String()}, {"settings", "set", "subscriber_session_removal=off", "--yes"}} {
			note(w.Daemon.Ctl(w.ctx, append([]string{"--token-file", file}, args...)...))
		}
	}
	if !strings.Contains(seen.String(), "has role operator here") || !strings.Contains(seen.String(), "the token of the call is not known") {
		t.Errorf("the calls were answered with\n%s", seen.String())
	}
	show := func() {
		note(w.Daemon.Ctl(w.ctx, "status", "-o", "json"))
		note(w.Daemon.Ctl(w.ctx, "settings", "get", "-o", "json"))
		for _, path := range []string{"/metrics", "/readyz", "/console/", "/console/settings", "/console/subscribers/" + alice.String()} {
			_, body, err := w.Daemon.Get(w.ctx, path)
			note(body, err)
		}
	}
	show()

	for _, name := range strings.Fields(w.redis("KEYS", "*")) {
		note(w.redis("DUMP", name), nil)
	}

	// Files that are wrong. The key of RadSec is read at each handshake.
	write(forRadSec.ServerKey, string(radsecKey[:len(radsecKey)/2]))
	if conn, err := tls.Dial("tcp", w.address("radsec"), &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("a handshake with half of a key succeeds")
		_ = conn.Close()
	}
	write(forRadSec.ServerKey, string(radsecKey))
	write(tokenFile, token+" "+token)
	write(keyFile, string(key[:len(key)/2]))
	w.must(w.Until(w.ctx, "both files to be refused", func() (bool, error) {
		return strings.Count(w.Daemon.Log(), "changed files cannot be used") == 2, nil
	}))
	write(tokenFile, token)
	write(keyFile, string(key))
	spoil := map[string][2]string{
		"a quote that is open":   {"secret: " + rig.Secret, `secret: "` + rig.Secret},
		"a secret as a mapping":  {"secret: " + rig.Secret, "secret: {" + rig.Secret + ": " + rig.Secret + "}"},
		"a secret as its key":    {"secret: " + rig.Secret, "secret: 1, note: " + rig.Secret},
		"a database that is not": {"unix://planted:" + password + "@", "redis://planted:" + password + "@host:port"},
		"another scheme":         {"unix://planted:" + password + "@", "tcp://planted:" + password + "@"},
	}
	for name, change := range spoil {
		if !strings.Contains(good, change[0]) {
			t.Fatalf("%s: %s is not in the configuration", name, change[0])
		}
		taken, err := w.Daemon.Reload(w.ctx, func(string) string { return strings.Replace(good, change[0], change[1], 1) })
		if w.must(err); taken {
			t.Errorf("%s is taken", name)
		}
	}

	// Redis refuses the password, and goes away.
	w.redis("ACL", "SETUSER", "planted", "resetpass", ">another")
	w.redis("CLIENT", "KILL", "USER", "planted")
	w.must(w.Until(w.ctx, "the lost database to be told", func() (bool, error) {
		code, _, err := w.Daemon.Get(w.ctx, "/readyz")
		return code == http.StatusServiceUnavailable, err
	}))
	show()
	w.must(w.Redis.Kill())
	show()
	_, err = w.Daemon.Stop()
	w.must(err)
	note(w.Daemon.Log(), nil)
	w.Daemon.Args = []string{"--check"}
	for name, change := range spoil {
		w.must(w.Daemon.Edit(func(string) string { return strings.Replace(good, change[0], change[1], 1) }))
		code, err := w.Daemon.Refuse(w.ctx)
		if w.must(err); code != 2 {
			t.Errorf("%s: --check ends with %d", name, code)
		}
		note(w.Daemon.Log(), nil)
	}
	w.must(w.Daemon.Edit(func(string) string { return good }))
	if code, err := w.Daemon.Refuse(w.ctx); err != nil || code != 0 {
		t.Errorf("--check of the good configuration: %d, %v", code, err)
	}
	note(w.Daemon.Log(), nil)
	for line := range strings.Lines(seen.String()) {
		for _, secret := range planted {
			if strings.Contains(line, secret) {
				t.Errorf("a secret in: %s", line)
			}
		}
	}
}
