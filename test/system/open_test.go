package system

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
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

// TestReloadOpensNothing: a reload that takes the roles away, of a configuration that would be safe by
// its other listener, leaves the roles in force at the listener that runs, and says why.
func TestReloadOpensNothing(t *testing.T) {
	certs := controltest.MakeCerts(t)
	w := start(t, rig.Options{Memory: true})
	token := filepath.Join(w.Dir, "noc.token")
	w.must(os.WriteFile(token, []byte("0123456789012345678901234567890123456789"), 0o600))
	grpcOf := func(config, text string) string {
		before, rest, _ := strings.Cut(config, "grpc: {")
		_, after, _ := strings.Cut(rest, "}\n")
		return before + "grpc: {" + text + "}\n" + after
	}
	w.must(w.Daemon.Edit(func(config string) string {
		return grpcOf(config, `listen: "0.0.0.0:0", tls: {cert_file: "`+certs.Server+`", key_file: "`+certs.ServerKey+`"}, roles: [{role: viewer, token_file: "`+token+`"}]`)
	}))
	_, err := w.Daemon.Stop()
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))
	_, port, err := net.SplitHostPort(w.address("grpc"))
	w.must(err)
	stranger, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	w.must(err)
	defer stranger.Close()
	refused := func(when string) {
		t.Helper()
		if _, err := pb.NewControlServiceClient(stranger).GetStatus(w.ctx, &pb.GetStatusRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: a stranger got %v", when, err)
		}
	}
	refused("at the start")
	taken, err := w.Daemon.Reload(w.ctx, func(config string) string { return grpcOf(config, `listen: "127.0.0.1:0"`) })
	if w.must(err); !taken {
		t.Fatal("the reload is refused")
	}
	refused("after the reload")
	if log := w.Daemon.Log(); !strings.Contains(log, `grpc.roles stay as they were`) || !strings.Contains(log, `"keys":["grpc.listen","grpc.tls.cert_file","grpc.tls.key_file"]`) {
		t.Errorf("the log does not say so:\n%s", log)
	}
}
