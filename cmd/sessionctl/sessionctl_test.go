package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// result is the outcome of one run of the command.
type result struct {
	code           int
	stdout, stderr string
}

// ctl runs the command against a server, at the time of the scene. answer is typed at the
// terminal; "" means no terminal.
func ctl(t *testing.T, address, answer string, arguments ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := sceneApp(answer, &stdout, &stderr)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code := a.run(ctx, append([]string{"--addr", address}, arguments...))
	return result{code, stdout.String(), stderr.String()}
}

// sceneApp returns the command at the time of the scene, in UTC.
func sceneApp(answer string, stdout, stderr io.Writer) *app {
	a := newApp(strings.NewReader(answer), stdout, stderr)
	a.now, a.zone = func() time.Time { return controltest.Now }, time.UTC
	a.terminal = func() bool { return answer != "" }
	return a
}

// TestGolden: each golden file holds the output of one command line.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"subscriber_list":       "subscriber list",
		"subscriber_list_json":  "-o json subscriber list",
		"subscriber_list_none":  "subscriber list --user nobody",
		"subscriber_get":        "subscriber get 100.64.0.7",
		"subscriber_get_json":   "subscriber get 100.64.0.7 -o json",
		"subscriber_get_none":   "subscriber get 100.64.0.99",
		"subscriber_put":        "subscriber put 100.64.1.1 --user dave --expires-in 8h",
		"subscriber_put_none":   "subscriber put 10.0.0.1 --user dave",
		"subscriber_delete":     "subscriber delete --nas bng1.example --yes",
		"binding_list":          "binding list",
		"binding_list_json":     "binding list -o json",
		"binding_lookup":        "binding lookup 198.51.100.1:1600",
		"binding_lookup_none":   "binding lookup 198.51.100.1:1600 --at 2020-01-01T00:00:00Z",
		"session_list":          "session list",
		"session_list_json":     "session list --protocol tcp -o json",
		"session_count":         "session count --inside 100.64.0.7",
		"session_count_json":    "session count -o json",
		"session_kill":          "session kill --remote 203.0.113.5:443 -y",
		"session_kill_none":     "session kill --remote 203.0.113.5:80 --yes",
		"mapping_list":          "mapping list",
		"mapping_list_json":     "mapping list --owner alice -o json",
		"mapping_list_none":     "mapping list --owner nobody",
		"mapping_create":        "mapping create :22 --owner bob --protocol tcp --lifetime 24h",
		"mapping_create_fixed":  "mapping create 100.64.0.7:53 198.51.100.1:60053 --protocol udp -o json",
		"mapping_create_taken":  "mapping create :22 198.51.100.1:60022 --owner bob --protocol tcp",
		"mapping_delete":        "mapping delete 198.51.100.1:60022 --protocol tcp --yes",
		"mapping_delete_json":   "mapping delete 198.51.100.1:60022 --protocol tcp --yes -o json",
		"mapping_delete_none":   "mapping delete 198.51.100.1:60001 --protocol tcp --yes",
		"mapping_configured":    "mapping delete 198.51.100.1:60015 --protocol udp --yes",
		"mapping_lookup":        "binding lookup 198.51.100.1:60022",
		"help_mapping":          "mapping create --help",
		"pool_list":             "pool list",
		"pool_list_json":        "pool list -o json",
		"drops":                 "drops",
		"drops_all":             "drops --all",
		"drops_json":            "drops -o json",
		"pool_add":              "pool add 203.0.113.0/28 --group default",
		"pool_add_conflict":     "pool add 100.64.0.0/24",
		"pool_drain":            "pool drain 198.51.100.0/28",
		"pool_drain_none":       "pool drain 203.0.113.0/28",
		"pool_remove_live":      "pool remove 198.51.100.0/28 --yes",
		"pool_remove":           "pool remove 198.51.100.0/28 --allow-disruption --yes",
		"pool_remove_json":      "pool remove 198.51.100.0/28 --allow-disruption --yes -o json",
		"help_pool":             "pool remove --help",
		"pool_advise":           "pool advise --target 0.2",
		"pool_advise_json":      "pool advise -o json",
		"pool_advise_none":      "pool advise --group nobody",
		"settings_get":          "settings get",
		"settings_get_json":     "settings get -o json",
		"settings_set":          "settings set subscriber_session_removal=off idle_timeouts.udp=2m",
		"status":                "status",
		"status_json":           "status -o json",
		"help":                  "--help",
		"help_delete":           "subscriber delete --help",
		"reconcile":             "reconcile",
		"removal_list":          "removal list",
		"removal_list_json":     "removal list --kind held -o json",
		"removal_list_none":     "removal list --reason admin",
		"removal_confirm":       "removal confirm --reason expired --yes",
		"removal_confirm_none":  "removal confirm --nas nobody --yes",
		"removal_refuse":        "removal refuse --inside 0.0.0.0/0 --yes -o json",
		"help_removal":          "removal refuse --help",
		"nas_list":              "nas list",
		"nas_list_json":         "nas list --client core -o json",
		"nas_list_none":         "nas list --nas nobody",
		"nas_get":               "nas get bng2.example",
		"nas_get_json":          "nas get bng1.example --client proxy2 -o json",
		"nas_get_none":          "nas get nobody",
		"nas_get_several":       "nas get MikroTik",
		"help_nas":              "nas get --help",
		"top":                   "top",
		"top_rate":              "top --by rate -n 1",
		"top_octets":            "top --by octets --outside 198.51.100.0/28",
		"top_json":              "top --by blocks -o json",
		"explain":               "explain alice",
		"explain_waiting":       "explain 100.64.0.8",
		"explain_offline":       "explain carol",
		"explain_json":          "explain carol -o json",
		"explain_none":          "explain nobody",
		"history":               "subscriber history",
		"history_user":          "subscriber history carol --from -1h",
		"history_json":          "subscriber history --reason nas-restart -o json",
		"history_none":          "subscriber history nobody",
		"subscriber_prefix":     "subscriber list --user-prefix bo --order-by user_name",
		"subscriber_order_none": "subscriber list --order-by octets",
		"binding_outside":       "binding list --outside 198.51.100.1:1600",
		"nas_get_restarted":     "nas get bng1.example --client bng1",
		"reconcile_dry_json":    "reconcile --dry-run -o json",
		"audit_list":            "audit list",
		"audit_list_json":       "audit list --method DeleteSubscribers -o json",
		"audit_list_none":       "audit list --actor nobody",
		"audit_verify":          "audit verify",
		"audit_verify_json":     "audit verify default -o json",
		"try_delete":            "subscriber delete --nas bng1.example --validate-only --reason test",
		"try_put":               "subscriber put 100.64.0.7 --user dave --validate-only",
		"try_kill":              "session kill --inside 100.64.0.7 --validate-only",
		"try_settings":          "settings set subscriber_session_removal=off --validate-only",
		"try_confirm":           "removal confirm --inside 0.0.0.0/0 --validate-only --audit-reason test",
		"try_refuse":            "removal refuse --inside 0.0.0.0/0 --validate-only -o json",
		"try_pool":              "pool remove 198.51.100.0/28 --allow-disruption --validate-only",
		"try_pool_add":          "pool add 203.0.113.0/28 --validate-only",
		"try_mapping":           "mapping create :22 --owner bob --protocol tcp --validate-only",
		"try_mapping_delete":    "mapping delete 198.51.100.1:60022 --protocol tcp --validate-only",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := controltest.Serve(t, controltest.Scene(), nil)
			r := ctl(t, server.Address, "", strings.Fields(line)...)
			golden(t, name, "$ sessionctl "+line+"\n"+r.stdout, r)
		})
	}
}

func golden(t *testing.T, name, got string, r result) {
	t.Helper()
	if r.stderr != "" {
		got += "--- stderr\n" + r.stderr
	}
	if r.code != 0 {
		got += "--- exit " + number(uint32(r.code)) + "\n"
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("output differs (-want +got); go test -update rewrites it\n%s", diff)
	}
}

func TestJSONIsOneObjectALine(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	for _, line := range []string{"subscriber list", "binding list", "session list", "pool list", "pool advise", "settings get", "status", "reconcile", "removal list", "mapping list", "nas list", "nas get bng2.example", "top", "explain alice", "subscriber history"} {
		r := ctl(t, server.Address, "", append(strings.Fields(line), "-o", "json")...)
		for _, text := range strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n") {
			var object map[string]any
			if err := json.Unmarshal([]byte(text), &object); err != nil || len(object) == 0 {
				t.Errorf("%s: %q: %v", line, text, err)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	for line, want := range map[string]int{
		"":                                                      exitDone,
		"--help":                                                exitDone,
		"--version":                                             exitDone,
		"completion bash":                                       exitDone,
		"status":                                                exitDone,
		"subscriber list --user nobody":                         exitDone,
		"subscriber get 100.64.0.99":                            exitRefused,
		"subscriber delete 100.64.0.7":                          exitRefused, // no terminal to ask on
		"subscriber delete -y --user x":                         exitRefused, // no such subscriber
		"session kill --inside 100.64.0.7":                      exitRefused, // no terminal to ask on
		"binding lookup 198.51.100.1:9":                         exitRefused,
		"subscriber put 10.0.0.1 --user u":                      exitRefused, // no group
		"nonsense":                                              exitUsage,
		"audit list --from yesterday":                           exitUsage,
		"audit verify nowhere":                                  exitRefused,
		"subscriber":                                            exitUsage,
		"subscriber nonsense":                                   exitUsage,
		"subscriber list extra":                                 exitUsage,
		"subscriber list --nonsense":                            exitUsage,
		"subscriber list --inside x":                            exitUsage,
		"subscriber get":                                        exitUsage,
		"subscriber get x":                                      exitUsage,
		"subscriber get 2001:db8::1":                            exitUsage,
		"subscriber delete":                                     exitUsage,
		"subscriber delete -y":                                  exitUsage,
		"subscriber delete 1.1.1.1 --inside 1.1.1.1":            exitUsage,
		"subscriber put 100.64.1.1":                             exitUsage,
		"pool drain 203.0.113.0/28":                             exitRefused,
		"pool remove 198.51.100.0/28":                           exitRefused, // no terminal to ask on
		"pool remove -y 198.51.100.0/28":                        exitRefused, // live bindings
		"pool add 100.64.0.0/24":                                exitRefused, // inside
		"mapping create :22 --protocol tcp":                     exitUsage,   // whose
		"mapping create 22 --owner a --protocol tcp":            exitUsage,   // no port
		"mapping create :22 --owner a":                          exitUsage,   // no protocol
		"mapping create 100.64.0.0/24:22 --protocol tcp":        exitUsage,
		"mapping create 100.64.0.7:22 --owner a --protocol tcp": exitUsage,
		"mapping create :22 198.51.100.1 --owner a --protocol tcp":   exitUsage,
		"mapping create :22 --owner a --protocol tcp --lifetime -1s": exitUsage,
		"mapping create :22 --owner a --protocol icmp":               exitUsage,
		"mapping list --outside x":                                   exitUsage,
		"mapping delete 198.51.100.1:60022 -y":                       exitUsage,
		"mapping delete 198.51.100.1:60022 --protocol tcp":           exitRefused, // no terminal to ask on
		"mapping delete -y 198.51.100.1:60001 --protocol tcp":        exitRefused,
		"pool add":                           exitUsage,
		"pool add x":                         exitUsage,
		"pool add 203.0.113.1/28":            exitUsage, // host bits
		"pool add 2001:db8::/64":             exitUsage,
		"pool remove -y 127.0.0.0/8":         exitUsage,
		"nas list --nas nobody":              exitDone,
		"nas get nobody":                     exitRefused,
		"nas get bng1.example --client core": exitRefused,
		"nas get MikroTik":                   exitUsage, // several clients have such a NAS
		"nas get":                            exitUsage,
		"nas get a b":                        exitUsage,
		"nas":                                exitUsage,
		"top --by odd":                       exitUsage,
		"top -n 0":                           exitUsage,
		"top --window 1m":                    exitUsage,
		"top --outside x":                    exitUsage,
		"top extra":                          exitUsage,
		"explain":                            exitUsage,
		"explain nobody":                     exitRefused,
		"subscriber history a b":             exitUsage,
		"subscriber history --reason odd":    exitUsage,
		"subscriber history --from noon":     exitUsage,
		"subscriber history --to -x":         exitUsage,
		"subscriber history --inside x":      exitUsage,
		"subscriber history 100.64.0.7 --inside 100.64.0.0/24":    exitUsage,
		"subscriber history --from -1h --to -2h":                  exitUsage, // refused by the daemon
		"subscriber list --state odd":                             exitUsage,
		"subscriber list --outside x":                             exitUsage,
		"subscriber list --outside 198.51.100.0/28:80":            exitUsage, // refused by the daemon
		"subscriber list --user-prefix al":                        exitDone,
		"subscriber delete -y --user-prefix x":                    exitRefused, // no such subscriber
		"subscriber delete --calling-station-id x":                exitRefused, // no terminal to ask on
		"subscriber delete -y --group default":                    exitUsage,
		"binding lookup 198.51.100.1:1600 --at -10s":              exitDone,
		"nas list extra":                                          exitUsage,
		"nas list --addr 127.0.0.1:1":                             exitUnreachable,
		"removal list --reason odd":                               exitUsage,
		"removal list --kind odd":                                 exitUsage,
		"removal list --inside x":                                 exitUsage,
		"removal confirm -y":                                      exitUsage,
		"removal refuse -y":                                       exitUsage,
		"removal confirm --group default":                         exitRefused, // no terminal to ask on
		"removal refuse -y --nas nobody":                          exitRefused, // none held
		"subscriber put 100.64.1.1 --user u --expires-in -1s":     exitUsage,
		"binding lookup 198.51.100.1":                             exitUsage,
		"binding lookup 198.51.100.0/24:5":                        exitUsage,
		"binding lookup 198.51.100.1:65536":                       exitUsage,
		"binding lookup 198.51.100.1:9 --at noon":                 exitUsage,
		"binding lookup 198.51.100.1:9 --at 2100-01-01T00:00:00Z": exitUsage, // refused by the daemon
		"binding list --state odd":                                exitUsage,
		"session kill -y":                                         exitUsage,
		"session list --protocol odd":                             exitUsage,
		"session list --remote 1.1.1.1:x":                         exitUsage,
		"settings set":                                            exitUsage,
		"settings set nonsense":                                   exitUsage,
		"settings set a=b":                                        exitUsage,
		"settings set subscriber_session_removal=maybe":           exitUsage,
		"settings set idle_timeouts.udp=1.5s":                     exitUsage,
		"settings set idle_timeouts.udp=9s idle_timeouts.udp=9s":  exitUsage,
		"status -o xml":                                           exitUsage,
		"status --watch=0s":                                       exitUsage,
		"status --watch -o json":                                  exitUsage,
		"subscriber list --sort odd":                              exitUsage,
		"subscriber list --limit -1":                              exitUsage,
		"status --timeout 0s":                                     exitUsage,
		"status --tls-cert x":                                     exitUsage,
		"status --tls-ca /nonexistent":                            exitUsage,
		"status --addr nowhere":                                   exitUsage,
		"status --addr 127.0.0.1:1":                               exitUnreachable,
		"watch --addr 127.0.0.1:1":                                exitUnreachable,
		"session list --addr 127.0.0.1:1":                         exitUnreachable,
		"status --addr unix:/nonexistent":                         exitUnreachable,
	} {
		r := ctl(t, server.Address, "", strings.Fields(line)...)
		if r.code != want {
			t.Errorf("%q: exit %d, want %d; stderr: %s", line, r.code, want, r.stderr)
		}
		if (r.code == 0) != (r.stderr == "" || strings.HasPrefix(r.stderr, "no such")) {
			t.Errorf("%q: exit %d with stderr %q", line, r.code, r.stderr)
		}
	}
}

// TestStatusWhileNotReady: the status is printed all the same, in every format,
// and the exit code is unique to this case.
func TestStatusWhileNotReady(t *testing.T) {
	t.Parallel()
	backend := controltest.Scene()
	backend.Glance.NotReady, backend.Glance.DatabaseUp = "redis: no answer", false
	server := controltest.Serve(t, backend, nil)
	for name, line := range map[string]string{
		"status_not_ready": "status", "status_not_ready_json": "status -o json",
	} {
		r := ctl(t, server.Address, "", strings.Fields(line)...)
		if r.code != exitNotReady {
			t.Errorf("%s: exit %d, want %d", line, r.code, exitNotReady)
		}
		golden(t, name, "$ sessionctl "+line+"\n"+r.stdout, r)
	}
	if r := ctl(t, server.Address, "", "pool", "list"); r.code != exitDone {
		t.Errorf("pool list: exit %d, want 0: only status tells of readiness", r.code)
	}
}

// TestStatusWhileRestoring: counts that go up from zero after a start are not shown as if they
// were the state.
func TestStatusWhileRestoring(t *testing.T) {
	t.Parallel()
	backend := controltest.Scene()
	backend.Glance.NotReady, backend.Glance.Groups[0].Restoring = "restoring", true
	server := controltest.Serve(t, backend, nil)
	r := ctl(t, server.Address, "", "status")
	golden(t, "status_restoring", "$ sessionctl status\n"+r.stdout, r)
}

// TestStatusNamesForeignTranslations: the status names the rules that
// translated subscribers' flows, and the flows even after the rules are gone.
func TestStatusNamesForeignTranslations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		line   string
		chains []string
	}{
		"status_foreign":      {"status", []string{"table ip operator, chain out, priority 50", "table inet late, chain out, priority 120"}},
		"status_foreign_json": {"status -o json", []string{"table ip operator, chain out, priority 50"}},
		"status_foreign_gone": {"status", nil},
	} {
		backend := controltest.Scene()
		backend.Glance.Foreign = inspect.ForeignTranslations{
			Flows: 2, At: controltest.Now.Add(-5 * time.Second), Chains: c.chains,
			Inside: netip.MustParseAddr("100.64.0.7"), SeenAs: netip.MustParseAddr("203.0.113.1"),
		}
		r := ctl(t, controltest.Serve(t, backend, nil).Address, "", strings.Fields(c.line)...)
		golden(t, name, "$ sessionctl "+c.line+"\n"+r.stdout, r)
	}
}

// TestStatusNamesFlowtables: the status names flowtables that carry packets past the gates, and a
// session that one carries has no timeout.
func TestStatusNamesFlowtables(t *testing.T) {
	t.Parallel()
	others := []string{"table inet fast, chain forward, flow add @ft", "table inet fast, flowtable ft, devices i0 s0"}
	for name, c := range map[string]struct {
		line string
		of   inspect.Flowtables
	}{
		"status_flowtables_refused":  {"status", inspect.Flowtables{Mode: "refuse", Others: others, Refused: true}},
		"status_flowtables_accepted": {"status", inspect.Flowtables{Mode: "accept", Others: others}},
		"status_flowtables_own":      {"status", inspect.Flowtables{Mode: "own"}},
		"status_flowtables_json":     {"status -o json", inspect.Flowtables{Mode: "refuse", Others: others, Refused: true}},
		"session_list_offload":       {"session list", inspect.Flowtables{}},
		"session_list_offload_json":  {"session list -o json", inspect.Flowtables{}},
	} {
		backend := controltest.Scene()
		backend.Glance.Flowtables = c.of
		for i := range backend.Flows {
			backend.Flows[i].State, backend.Flows[i].Offloaded, backend.Flows[i].ExpiresIn = "OFFLOAD", true, 0
		}
		r := ctl(t, controltest.Serve(t, backend, nil).Address, "", strings.Fields(c.line)...)
		golden(t, name, "$ sessionctl "+c.line+"\n"+r.stdout, r)
	}
}

func TestUnreachableSaysWhatToDo(t *testing.T) {
	t.Parallel()
	r := ctl(t, "127.0.0.1:1", "", "status")
	if !strings.Contains(r.stderr, "cannot reach sessiond at 127.0.0.1:1") || !strings.Contains(r.stderr, "is it running?") {
		t.Errorf("stderr: %s", r.stderr)
	}
}

func TestGlobalFlagsBeforeAndAfter(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	before := ctl(t, server.Address, "", "-o", "json", "status")
	after := ctl(t, server.Address, "", "status", "--output=json", "--addr", server.Address)
	if before.code != 0 || before != after {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
}

func TestAddressFromEnvironment(t *testing.T) {
	server := controltest.Serve(t, controltest.Scene(), nil)
	t.Setenv(addressVariable, server.Address)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"status"}, strings.NewReader(""), &stdout, &stderr); code != 0 {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs := controltest.MakeCerts(t)
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.TLS = control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey, ClientCAFile: certs.CA}
	})
	for name, one := range map[string]struct {
		flags []string
		want  int
	}{
		"all":         {[]string{"--tls-ca", certs.CA, "--tls-cert", certs.Client, "--tls-key", certs.ClientKey}, exitDone},
		"no client":   {[]string{"--tls-ca", certs.CA}, exitUnreachable},
		"untrusted":   {[]string{"--tls-ca", "system"}, exitUnreachable},
		"none":        {nil, exitUnreachable},
		"no CA there": {[]string{"--tls-ca", certs.ServerKey}, exitUsage},
		"no pair":     {[]string{"--tls-cert", certs.CA, "--tls-key", certs.CA}, exitUsage},
	} {
		if r := ctl(t, server.Address, "", append([]string{"status"}, one.flags...)...); r.code != one.want {
			t.Errorf("%s: exit %d, want %d: %s", name, r.code, one.want, r.stderr)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.sock")
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.Listen = "unix:" + path })
	if r := ctl(t, server.Address, "", "status"); r.code != 0 {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

// TestMain is the program for tests of a process, or runs the tests without the address variable:
// the golden help contains the default address.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	_ = os.Unsetenv(addressVariable)
	os.Exit(m.Run())
}
