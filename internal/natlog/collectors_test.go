package natlog

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog/wire"
	"github.com/sessiond/sessiond/internal/rawtext"
	"github.com/sessiond/sessiond/internal/testenv"
)

// hostileNames are User-Names that try to leave their place.
var hostileNames = []string{"alice@isp", `a"b`, `a]b\`, "a\nb <13>1 - - - - - -", "a\x00b", "\xff\xfe", "é%0A", "[x@1 y=\"z\"]"}

// sample returns an event of each kind for each hostile name.
func sample() (events []nat.Event) {
	block := nat.Block{Outside: netip.MustParseAddr("198.51.100.7"), First: 1024, Last: 1535}
	at := time.Date(2026, 11, 30, 10, 0, 0, 123_000_000, time.UTC)
	for i, name := range hostileNames {
		h := nat.Identity{Inside: netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), UserName: name, NAS: "bng-1", AcctSessionID: name}
		for k := nat.Allocated; k <= nat.LimitReached; k++ {
			e := nat.Event{Kind: k, At: at.Add(time.Duration(len(events)) * time.Millisecond), Group: "default", Holder: h}
			switch k {
			case nat.Allocated, nat.Interim, nat.Released:
				e.Block = block
			case nat.AddressesExhausted:
				e.Holder = nat.Identity{}
			case nat.PortsExhausted:
				e.Outside = block.Outside
			case nat.LimitReached:
				e.Most = 1000
			}
			events = append(events, e)
		}
	}
	return events
}

// natEvents are the numbers of RFC 8158 section 5, table 1.
var natEvents = map[nat.EventKind]int{nat.Allocated: 16, nat.Interim: 16, nat.Released: 17, nat.AddressesExhausted: 3, nat.PortsExhausted: 12, nat.LimitReached: 13}

// program is a collector of another project.
type program struct {
	t     *testing.T
	dir   string
	port  int
	cmd   *exec.Cmd
	ended chan struct{}
}

// newProgram returns a directory and a free port for a collector.
func newProgram(t *testing.T, needs testenv.Need) *program {
	testenv.Require(t, needs)
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &program{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
}

func (p *program) path(name string) string { return filepath.Join(p.dir, name) }

func (p *program) write(name, format string, args ...any) string {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), fmt.Appendf(nil, format, args...), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.path(name)
}

// start runs the program until the test ends.
func (p *program) start(env []string, name string, args ...string) {
	p.t.Helper()
	p.cmd = exec.Command(name, args...)
	output, err := os.Create(p.path("printed"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer output.Close()
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(os.Environ(), env...), output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // it is killed
		close(p.ended)
	}()
	p.t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
		if p.t.Failed() {
			p.t.Logf("%s printed\n%s", name, p.printed())
		}
	})
}

func (p *program) printed() []byte {
	text, err := os.ReadFile(p.path("printed"))
	if err != nil {
		p.t.Error(err)
	}
	return text
}

// awaitUDP waits until the collector has its port. It asks the kernel: a socket of its own could
// be in the collector's way.
func (p *program) awaitUDP() {
	p.t.Helper()
	port := fmt.Sprintf(":%04X ", p.port)
	testenv.Eventually(p.t, "the collector to listen", func() bool {
		sockets, err := os.ReadFile("/proc/net/udp")
		return err == nil && bytes.Contains(sockets, []byte(port))
	})
}

func (p *program) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// send sends events to the collector, and returns when all have gone.
func (p *program) send(o Options, scheme string, events []nat.Event) {
	p.t.Helper()
	o.Target, o.Spool, o.Log, o.Node = scheme+"://"+p.address(), p.path("spool"), slog.New(slog.DiscardHandler), "cgn-1"
	s, err := Open(o)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := errors.Join(<-done, s.Close()); err != nil {
			p.t.Error(err)
		}
	}()
	if err := s.Append("default", "1", events); err != nil {
		p.t.Fatal(err)
	}
	testenv.Succeeds(p.t, func() error {
		stats, err := s.Stats()
		if err == nil && stats.SpoolEvents > 0 {
			err = fmt.Errorf("%d events are in the spool: %v", stats.SpoolEvents, stats.LastError)
		}
		return err
	})
}

// lines waits for as many lines of JSON in a file as there are events.
func (p *program) lines(name string, n int) (list []map[string]any) {
	p.t.Helper()
	testenv.Succeeds(p.t, func() error {
		text, err := os.ReadFile(p.path(name))
		if err != nil {
			return err
		}
		list = nil
		for line := range strings.Lines(string(text)) {
			_, object, ok := strings.Cut(line, "{")
			if !ok {
				return fmt.Errorf("a line is %q", line)
			}
			var m map[string]any
			if err := json.Unmarshal([]byte("{"+object), &m); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			list = append(list, m)
		}
		if len(list) != n {
			return fmt.Errorf("%d lines, want %d", len(list), n)
		}
		return nil
	})
	return list
}

// TestNfdump_LOG03_LOG05: nfdump reads all fields of NetFlow v9 that it knows.
func TestNfdump_LOG03_LOG05(t *testing.T) {
	p := newProgram(t, testenv.Nfdump)
	files := p.path("files")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	p.start(nil, "nfcapd", "-b", "127.0.0.1", "-p", strconv.Itoa(p.port), "-w", files)
	p.awaitUDP()
	events := sample()
	p.send(Options{Protocol: NetFlow9}, "udp", events)
	testenv.Succeeds(t, func() error {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.ended:
			return nil
		default:
			return errors.New("nfcapd runs on")
		}
	})
	out, err := exec.Command("nfdump", "-R", files, "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(out, &got); err != nil || len(got) != len(events) {
		t.Fatalf("%d records of %d events, %v", len(got), len(events), err)
	}
	for i, e := range events {
		want := map[string]string{"t_event": e.At.Format("2006-01-02T15:04:05.000"), "nat_event_id": strconv.Itoa(natEvents[e.Kind])}
		if e.Holder.Inside.IsValid() {
			want["src4_addr"] = e.Holder.Inside.String()
		}
		if e.Outside.IsValid() {
			want["src4_xlt_ip"] = e.Outside.String()
		}
		if e.First > 0 {
			want["pblock_start"], want["pblock_end"] = "1024", "1535"
		}
		for name, value := range want {
			if got[i][name] != value {
				t.Errorf("%v: %s is %v, want %s", e.Kind, name, got[i][name], value)
			}
		}
	}
}

// TestPmacct_LOG03_LOG05: nfacctd reads all fields of IPFIX with the primitives that come with
// sessiond.
func TestPmacct_LOG03_LOG05(t *testing.T) {
	p := newProgram(t, testenv.Pmacct)
	primitives, err := filepath.Abs("../../deploy/pmacct/sessiond.primitives")
	if err != nil {
		t.Fatal(err)
	}
	config := p.write("nfacctd.conf", `daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: %d
plugins: print
print_output: json
print_output_file: %s
print_output_file_append: true
print_refresh_time: 1
print_history: 1m
aggregate_primitives: %s
aggregate: src_host, post_nat_src_host, proto, nat_event, observation_time, port_range_start, port_range_end, nat_pool_id, quota_event, max_entries_per_user, nat_user_name
`, p.port, p.path("out"), primitives)
	p.start(nil, "nfacctd", "-f", config)
	testenv.Eventually(t, "nfacctd to be ready", func() bool { return bytes.Contains(p.printed(), []byte("setting object handlers")) })
	p.awaitUDP()
	events := sample()
	p.send(Options{Protocol: IPFIX, FixedNames: true}, "udp", events)
	byTime := map[any]map[string]any{}
	for _, m := range p.lines("out", len(events)) {
		byTime[m["observation_time"]] = m
	}
	for _, e := range events {
		block, limit := e.First > 0, e.Kind == nat.LimitReached
		number := func(set bool, n uint64) string {
			if !set {
				n = 0
			}
			return strconv.FormatUint(n, 10)
		}
		address := func(a netip.Addr) string {
			if !a.IsValid() {
				return ""
			}
			return a.String()
		}
		name := rawtext.Of(e.Holder.UserName)
		if !block && !limit {
			name = ""
		}
		got := byTime[strconv.FormatInt(e.At.UnixMilli(), 10)]
		for key, want := range map[string]any{
			"nat_event": float64(natEvents[e.Kind]), "ip_src": address(e.Holder.Inside), "post_nat_ip_src": address(e.Outside), "ip_proto": "0",
			"port_range_start": number(block, 1024), "port_range_end": number(block, 1535),
			"nat_pool_id":          number(block || e.Kind == nat.AddressesExhausted, uint64(wire.PoolID("default"))),
			"max_entries_per_user": number(limit, 1000), "quota_event": number(limit, 3), "nat_user_name": name,
		} {
			if !reflect.DeepEqual(got[key], want) {
				t.Errorf("%v of %q: %s is %v, want %v", e.Kind, e.Holder.UserName, key, got[key], want)
			}
		}
	}
}

// TestTshark_LOG01_LOG03_LOG05: tshark finds nothing wrong in a message of each form, and reads
// all fields.
func TestTshark_LOG01_LOG03_LOG05(t *testing.T) {
	testenv.Require(t, testenv.Tshark)
	t.Parallel()
	events := sample()
	for name, packer := range map[string]wire.Packer{"ipfix": &wire.IPFIX{Domain: 7}, "ipfix-fixed": &wire.IPFIX{FixedNames: true}, "netflow9": &wire.NetFlow9{}} {
		message, packed := packer.Pack(nil, events, 60_000, true, events[0].At)
		if packed != len(events) {
			t.Fatalf("%s: %d events were packed", name, packed)
		}
		dir := t.TempDir()
		dump := filepath.Join(dir, "dump")
		if err := os.WriteFile(dump, []byte(hex.Dump(message)), 0o600); err != nil {
			t.Fatal(err)
		}
		capture := filepath.Join(dir, "capture")
		if out, err := exec.Command("text2pcap", "-q", "-u", "2055,2055", dump, capture).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		fields := []string{"_ws.malformed", "_ws.expert.message", "cflow.nat_event", "cflow.observation_time_milliseconds", "cflow.srcaddr",
			"cflow.post_natsource_ipv4_address", "cflow.port_range_start", "cflow.port_range_end", "cflow.nat_pool_id", "cflow.max_entries_per_user", "cflow.nat_quota_exceeded_event"}
		args := []string{"-r", capture, "-d", "udp.port==2055,cflow", "-T", "json"}
		for _, f := range fields {
			args = append(args, "-e", f)
		}
		out, err := exec.Command("tshark", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		var packets []struct {
			Source struct{ Layers map[string][]string } `json:"_source"`
		}
		if err := json.Unmarshal(out, &packets); err != nil || len(packets) != 1 {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		want := map[string][]string{}
		for _, e := range events {
			add := func(field string, value any) { want[field] = append(want[field], fmt.Sprint(value)) }
			add("cflow.nat_event", natEvents[e.Kind])
			add("cflow.observation_time_milliseconds", e.At.Format("Jan _2, 2006 15:04:05.000000000 UTC"))
			if e.Holder.Inside.IsValid() {
				add("cflow.srcaddr", e.Holder.Inside)
			}
			if e.Outside.IsValid() {
				add("cflow.post_natsource_ipv4_address", e.Outside)
			}
			if e.First > 0 {
				add("cflow.port_range_start", e.First)
				add("cflow.port_range_end", e.Last)
			}
			if e.First > 0 || e.Kind == nat.AddressesExhausted {
				add("cflow.nat_pool_id", wire.PoolID("default"))
			}
			if e.Kind == nat.LimitReached {
				add("cflow.max_entries_per_user", 1000)
				add("cflow.nat_quota_exceeded_event", 3)
			}
		}
		got := packets[0].Source.Layers
		for _, f := range fields {
			if !slices.Equal(got[f], want[f]) {
				t.Errorf("%s: %s is %q, want %q", name, f, got[f], want[f])
			}
		}
	}
}

// checkSyslog checks the structured data of events, as a syslog server has read it.
func checkSyslog(t *testing.T, e *nat.Event, got map[string]any) {
	t.Helper()
	want := map[string]any{"group": "default"}
	if e.First > 0 {
		want["first"], want["last"] = "1024", "1535"
	}
	if e.Outside.IsValid() {
		want["outside"] = e.Outside.String()
	}
	if e.Kind == nat.LimitReached {
		want["limit"], want["most"] = "sessions", "1000"
	}
	if h := &e.Holder; h.Inside.IsValid() {
		want["inside"], want["nas"] = h.Inside.String(), "bng-1"
		want["user"], want["session"] = rawtext.Of(h.UserName), rawtext.Of(h.AcctSessionID)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v of %q is read as %v, want %v", e.Kind, e.Holder.UserName, got, want)
	}
}

// TestRsyslog_LOG09_LOG10_LOG12: rsyslog parses each message over TCP, whatever the names have.
func TestRsyslog_LOG09_LOG10_LOG12(t *testing.T) {
	p := newProgram(t, testenv.Rsyslog)
	config := p.write("rsyslog.conf", `global(workDirectory="%[1]s")
module(load="imtcp")
module(load="mmpstrucdata")
template(name="line" type="string" string="%%timereported:::date-rfc3339%% %%hostname%% %%app-name%% %%msgid%% %%$!rfc5424-sd%%\n")
ruleset(name="all") {
	action(type="mmpstrucdata" sd_name.lowercase="off")
	action(type="omfile" file="%[1]s/out" template="line")
}
input(type="imtcp" address="127.0.0.1" port="%[2]d" ruleset="all")
`, p.dir, p.port)
	p.start(nil, "rsyslogd", "-n", "-f", config, "-i", p.path("pid"))
	events := sample()
	p.send(Options{Protocol: Syslog}, "tcp", events)
	list := p.lines("out", len(events))
	text, err := os.ReadFile(p.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	heads := strings.Split(string(text), "\n")
	for i := range events {
		message := wire.Syslog{PEN: wire.ExamplePEN, Node: "cgn-1"}
		words := strings.Fields(string(message.Append(nil, &events[i])))
		if head := strings.Fields(heads[i]); !slices.Equal(head[:4], []string{words[1], words[2], words[3], words[5]}) {
			t.Errorf("the head is %q", head[:4])
		}
		got, _ := list[i]["nat@32473"].(map[string]any)
		checkSyslog(t, &events[i], got)
	}
}

// TestSyslogNG_LOG09_LOG10_LOG12: so does syslog-ng.
func TestSyslogNG_LOG09_LOG10_LOG12(t *testing.T) {
	p := newProgram(t, testenv.SyslogNG)
	config := p.write("syslog-ng.conf", `@version: 3.38
options { keep-hostname(yes); };
source all { syslog(ip(127.0.0.1) port(%d) transport("tcp")); };
destination out { file("%s" template("$(format-json --key ISODATE --key HOST --key PROGRAM --key MSGID --key .SDATA.*)\n")); };
log { source(all); destination(out); };
`, p.port, p.path("out"))
	const root = testenv.SyslogNGRoot
	p.start([]string{"LD_LIBRARY_PATH=" + strings.Join([]string{root + "/usr/lib/syslog-ng", root + "/usr/lib/x86_64-linux-gnu"}, ":")},
		root+"/usr/sbin/syslog-ng", "-F", "--no-caps", "-f", config, "-R", p.path("persist"), "-c", p.path("control"), "-p", p.path("pid"),
		"--module-path="+root+"/usr/lib/syslog-ng/3.38")
	events := sample()
	p.send(Options{Protocol: Syslog}, "tcp", events)
	for i, m := range p.lines("out", len(events)) {
		if m["PROGRAM"] != "sessiond" || m["HOST"] != "cgn-1" {
			t.Errorf("the head is %v", m)
		}
		data, _ := m["_SDATA"].(map[string]any)
		got, _ := data["nat@32473"].(map[string]any)
		checkSyslog(t, &events[i], got)
	}
}
