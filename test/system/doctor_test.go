package system

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/doctor"
	"github.com/sessiond/sessiond/internal/rig"
)

// ofTheMachine are the checks whose findings are of the whole machine, or of how busy it is: a test
// must not mend them.
var ofTheMachine = []string{"conntrack-size", "conntrack-buckets", "time", "redis-latency", "redis-clock"}

// operatorsTables are tables of an operator that does not know of sessiond.
const operatorsTables = `
table ip nat {
	chain out { type nat hook postrouting priority 90; oifname "i0" masquerade; }
	chain harmless { type nat hook postrouting priority 80; ip saddr 172.17.0.0/16 masquerade; }
}
table inet filter {
	chain forward { type filter hook forward priority 0; policy drop; ct state established accept; }
}
table inet raw {
	chain pre { type filter hook prerouting priority -300; iifname "s0" notrack; ct event set destroy; }
}
`

const operatorsFlowtable = `
table inet fast {
	flowtable ft { hook ingress priority 0; devices = { s0, i0 }; }
	chain forward { type filter hook forward priority 1; meta l4proto udp flow add @ft; }
}
`

// sickWorld is a lab whose machine and Redis are not as sessiond needs them. sessiond has run
// there, and does not run.
type sickWorld struct {
	*world
	config string
	fast   bool // the kernel has flowtables
}

func startSick(t *testing.T) sickWorld {
	t.Helper()
	w := sickWorld{world: start(t, rig.Options{BlockSize: 16384, PortRange: "16384-65535"})}
	w.config = filepath.Join(w.Dir, "sessiond.yaml")
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Edit(func(config string) string {
		config = strings.Replace(config, "unix://", "unix://weak:pw@", 1)
		config = strings.Replace(config, "outside_interfaces: [i0]", "outside_interfaces: [i0, x0]", 1)
		return config + "  - {name: far, inside: [10.99.0.0/16], outside: [198.51.100.32/31], block_size: 16384, port_range: 16384-65535}\n"
	}))
	w.must(os.Chmod(w.config, 0o666))
	for _, command := range [][]string{
		{"CONFIG", "SET", "appendonly", "no"}, {"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"}, {"CONFIG", "SET", "notify-keyspace-events", ""},
		{"ACL", "SETUSER", "weak", "on", ">pw", "~sessiond:*", "&*", "+@all", "-xadd", "-config"},
	} {
		_, err := w.Redis.CLI(w.ctx, command...)
		w.must(err)
	}
	for _, command := range []string{
		"ip link add x0 type veth peer name x1", "ip addr add 198.51.100.3/32 dev x0",
		"tc filter del dev i0 egress pref 93", "ip route del blackhole 198.51.100.0/28",
		"sysctl -w net.ipv4.ip_forward=0", "sysctl -w net.ipv4.conf.i0.rp_filter=1", "sysctl -w net.netfilter.nf_conntrack_events=0",
		"sysctl -w net.netfilter.nf_conntrack_acct=0", "sysctl -w net.netfilter.nf_conntrack_tcp_loose=0", "sysctl -w net.netfilter.nf_conntrack_icmp_timeout=7",
		"nft " + operatorsTables,
	} {
		name, rest, _ := strings.Cut(command, " ")
		args := strings.Fields(rest)
		if name == "nft" {
			args = []string{rest}
		}
		_, err := w.Lab.CGN.Output(w.ctx, name, args...)
		w.must(err)
	}
	_, err := w.Lab.CGN.Output(w.ctx, "nft", operatorsFlowtable)
	w.fast = err == nil
	t.Logf("with a flowtable: %t", w.fast)
	return w
}

// examine runs sessionctl doctor, and returns its exit code and its findings, but for those of the
// whole machine.
func (w sickWorld) examine() (int, []doctor.Finding) {
	w.t.Helper()
	out, code := w.doctor("-o", "json")
	var findings []doctor.Finding
	for lines := json.NewDecoder(strings.NewReader(out)); lines.More(); {
		var f doctor.Finding
		w.must(lines.Decode(&f))
		if !slices.Contains(ofTheMachine, f.Check) {
			findings = append(findings, f)
		}
	}
	return code, findings
}

func (w sickWorld) doctor(args ...string) (out string, code int) {
	w.t.Helper()
	cmd := exec.CommandContext(w.ctx, programs.Sessionctl, append([]string{"doctor", "--config", w.config}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &failed) || failed.ExitCode() != 1) {
		w.t.Fatalf("sessionctl doctor: %v: %s", err, stderr.String())
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

// mend runs a finding's command as an operator would.
func (w sickWorld) mend(f doctor.Finding) {
	w.t.Helper()
	cmd := exec.CommandContext(w.ctx, "sh", "-c", f.Command)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(programs.Sessiond)+":"+os.Getenv("PATH"), "GATEWAY=203.0.113.10", "BNG=100.64.0.10")
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("ERR")) || bytes.Contains(out, []byte("NOPERM")) {
		w.t.Fatalf("%s: %s: %v: %s", f.Check, f.Command, err, out)
	}
}

// TestDoctor: beside a machine and a Redis that are not as sessiond needs them, sessionctl doctor
// finds each fault, with the daemon down. The command of each finding makes that finding go, and in
// the end nothing is left.
func TestDoctor(t *testing.T) {
	w := startSick(t)
	seen := map[string]int{}
	code, findings := w.examine()
	for _, f := range findings {
		if f.Check == "unread" || f.Check == "modules" {
			t.Errorf("found %+v", f)
		}
	}
	for round := 0; len(findings) > 0; round++ {
		if doctor.Mends(findings) && code != 1 {
			t.Errorf("exit %d with %+v", code, findings)
		}
		mended := slices.DeleteFunc(findings, func(f doctor.Finding) bool { return f.Command == "" })
		if len(mended) == 0 || round > 5 {
			t.Fatalf("cannot be mended: %+v", findings)
		}
		for _, f := range mended {
			t.Logf("%s: %s: %s", f.Check, f.Found, f.Command)
			seen[f.Check]++
			w.mend(f)
		}
		code, findings = w.examine()
		for _, f := range mended {
			if slices.Contains(findings, f) {
				t.Fatalf("%s left %s", f.Command, f.Found)
			}
		}
	}
	want := map[string]int{
		"forwarding": 1, "events": 1, "accounting": 1, "tcp-loose": 1, "timeouts": 1, "reverse-path": 1,
		"translations": 1, "untracked": 1, "quiet": 1, "firewall": 1, "interfaces": 1, "addresses": 1, "routes": 4,
		"redis-persistence": 1, "redis-eviction": 1, "redis-rights": 1, "files": 2,
	}
	if w.fast {
		want["flowtables"] = 1
	}
	for check, n := range want {
		if seen[check] != n {
			t.Errorf("%s: %d findings, want %d", check, seen[check], n)
		}
	}
	if out, _ := w.doctor(); !strings.Contains(out, " checks") {
		t.Errorf("a table without its last line:\n%s", out)
	}
	w.must(w.Daemon.Start(w.ctx))
	a := w.online(sessionOf(alice, "a1"))
	w.passes(w.flow(alice), fmt.Sprint("alice, with ", a.OutsideAddress))
}

// TestDoctorWithoutRedis: with no Redis, and no namespace, the rest is examined.
func TestDoctorWithoutRedis(t *testing.T) {
	w := sickWorld{world: start(t, rig.Options{Memory: true})}
	w.config = filepath.Join(w.Dir, "sessiond.yaml")
	w.must(w.Redis.Kill())
	began := time.Now()
	code, findings := w.examine()
	if code != 1 || !slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Check == "redis" && f.Severity == doctor.Must }) {
		t.Errorf("exit %d, %+v", code, findings)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	w.must(os.WriteFile(w.config, []byte("nat: 7\n"), 0o600))
	cmd := exec.CommandContext(w.ctx, programs.Sessionctl, "doctor", "--config", w.config)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "nat") {
		t.Errorf("exit %v, %s", err, out)
	}
}
