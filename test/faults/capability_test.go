package faults

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestNoCapability: without the required capabilities sessiond does not start, and names
// them. With them it would start, and wait for Redis.
func TestNoCapability(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Nft)
	t.Parallel()
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "sessiond.yaml")
	text := strings.NewReplacer("DIR", dir, "NETNS", lab.CGN.Name()).Replace(`redis: {url: "unix://DIR/redis.sock"}
radius: {listen: ["127.0.0.1:0"], clients: [{name: bng1, prefix: 127.0.0.0/8, secret: testing123}]}
grpc: {listen: "unix:DIR/grpc.sock"}
http: {listen: "127.0.0.1:0"}
nat: {netns: "NETNS", inside_interfaces: [s0], outside_interfaces: [i0]}
groups: [{name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28]}]
`)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, lacking := range []string{"-net_admin", "-sys_admin", "-net_admin,-sys_admin"} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		cmd := exec.CommandContext(ctx, "setpriv", "--bounding-set="+lacking, programs.Sessiond, "--config", config)
		out, _ := cmd.CombinedOutput()
		cancel()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), "CAP_NET_ADMIN") {
			t.Errorf("%s: exit code %d, want 1 and a word on CAP_NET_ADMIN:\n%s", lacking, code, out)
		}
	}
}
