package system

import (
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestOpenControlIsRefused: gRPC with TLS but without client certificates, on an address
// that other hosts reach, is refused by --check, at the start and at a reload, which keeps
// the old configuration; each message says how to change it. An explicit key permits it.
func TestOpenControlIsRefused(t *testing.T) {
	certs := controltest.MakeCerts(t)
	w := start(t, rig.Options{Memory: true})
	open := func(config, more string) string {
		before, rest, _ := strings.Cut(config, "grpc: {")
		_, after, _ := strings.Cut(rest, "}\n")
		return before + `grpc: {listen: "0.0.0.0:0", tls: {cert_file: "` + certs.Server + `", key_file: "` + certs.ServerKey + `"}` + more + "}\n" + after
	}
	told := func(when string) {
		t.Helper()
		if log := w.Daemon.Log(); !strings.Contains(log, "grpc.tls.client_ca_file: is missing") || !strings.Contains(log, "insecure_clients: true") {
			t.Errorf("%s does not say what to do:\n%s", when, log)
		}
	}
	taken, err := w.Daemon.Reload(w.ctx, func(config string) string { return open(config, "") })
	w.must(err)
	if taken {
		t.Error("a reload is taken")
	}
	told("a reload")
	w.online(sessionOf(alice, "a-1"))
	_, err = w.Daemon.Stop()
	w.must(err)
	for _, args := range [][]string{{"--check"}, nil} {
		w.Daemon.Args = args
		code, err := w.Daemon.Refuse(w.ctx)
		w.must(err)
		if code != 2 {
			t.Errorf("with %v: exit code %d, want 2", args, code)
		}
		told("a start")
	}
	w.must(w.Daemon.Edit(func(config string) string { return open(config, ", insecure_clients: true") }))
	w.must(w.Daemon.Start(w.ctx))
}
