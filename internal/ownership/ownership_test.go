package ownership

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/testenv"
)

// Environment variables that make the test binary a process which holds something until it
// is killed: a table, given as NAMESPACE/TABLE, or a name, as nobody. A name stands behind
// "full " for who has asked itself until it takes no more, behind "deaf " for who takes none,
// behind "apart " for the administrator of a user namespace that a user has made.
const (
	holder   = "SESSIOND_TEST_HOLD"
	squatter = "SESSIOND_TEST_SQUAT"
)

const nobody = 65534

func TestMain(m *testing.M) {
	if what, ok := os.LookupEnv(holder); ok {
		namespace, table, _ := strings.Cut(what, "/")
		_, err := LockTable(context.Background(), namespace, table)
		hold(err)
	}
	if what, ok := os.LookupEnv(squatter); ok {
		hold(squat(what))
	}
	os.Exit(m.Run())
}

// squat takes a name as nobody.
func squat(what string) error {
	how, text, said := strings.Cut(what, " ")
	if !said {
		text = what
	}
	if how != "apart" { // else it is one already
		if err := syscall.Setuid(nobody); err != nil {
			return err
		}
	}
	if how == "deaf" {
		fd, err := openSocket()
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + text})
	}
	if _, err := bindName(text); err != nil || how != "full" {
		return err
	}
	for range 2 * waiting {
		fd, err := openSocket()
		if err != nil {
			return err
		}
		if unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + text}) != nil {
			return nil
		}
	}
	return errors.New("it takes all who ask")
}

// hold says that something is held, and goes on holding it.
func hold(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("holds")
	select {}
}

// startHolder starts a process that holds a table.
func startHolder(t *testing.T, namespace, table string) *exec.Cmd {
	t.Helper()
	return startWith(t, holder+"="+namespace+"/"+table, nil)
}

// startSquatter starts a process of a user who may nothing, which holds a name; see squatter.
func startSquatter(t *testing.T, text string) *exec.Cmd {
	t.Helper()
	attr := &syscall.SysProcAttr{}
	if strings.HasPrefix(text, "apart ") {
		root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
		attr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, UidMappings: root, GidMappings: root,
			Credential: &syscall.Credential{NoSetGroups: true},
		}
	}
	return startWith(t, squatter+"="+text, attr)
}

func startWith(t *testing.T, variable string, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	program, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := exec.Command("/proc/self/fd/3") // other users cannot reach the program by its path
	cmd.Env, cmd.SysProcAttr, cmd.ExtraFiles = append(os.Environ(), variable), attr, []*os.File{program}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "holds\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	return cmd
}

func tableName() string { return fmt.Sprintf("test_%d_%d", os.Getpid(), time.Now().UnixNano()) }

// TestTableHasOneProcess_I7: a table locked by another process is refused, with
// the id of that process; it is free as soon as the process is killed.
func TestTableHasOneProcess_I7(t *testing.T) {
	t.Parallel()
	table := tableName()
	other := startHolder(t, "", table)
	began := time.Now()
	_, err := LockTable(t.Context(), "", table)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", other.Process.Pid)) || !strings.Contains(err.Error(), table) {
		t.Fatalf("second lock of a table: %v", err)
	}
	if took := time.Since(began); took < handover {
		t.Errorf("gave up after %v: a daemon that is about to end was not waited for", took)
	}
	if free, err := LockTable(t.Context(), "", table+"_b"); err != nil {
		t.Errorf("another table: %v", err)
	} else if err := free.Close(); err != nil {
		t.Error(err)
	}

	won := make(chan error)
	go func() {
		l, err := LockTable(t.Context(), "", table)
		if err == nil {
			err = l.Close()
		}
		won <- err
	}()
	if err := other.Process.Kill(); err != nil { // the cleanup waits for it
		t.Fatal(err)
	}
	if err := <-won; err != nil {
		t.Errorf("after the other was killed: %v", err)
	}
}

// TestStrangersLockNothing: any user of the machine can take the name of a table, whether it
// is asked then or not. That keeps no daemon from the table; and of daemons one has the table,
// whatever strangers hold and give back.
func TestStrangersLockNothing_I10(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for _, how := range []string{"", "full ", "deaf ", "apart "} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			table := tableName()
			name := "sessiond/table/" + table
			strangers := []*exec.Cmd{startSquatter(t, how+name), startSquatter(t, how+name+"/more")}
			lock, err := LockTable(t.Context(), "", table)
			if err != nil {
				t.Fatalf("a stranger has the name: %v", err)
			}
			refused(t, table, "while strangers have the name")
			for _, s := range strangers {
				_, _ = s.Process.Kill(), s.Wait()
			}
			refused(t, table, "once the strangers gave the name back")
			if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
			startHolder(t, "", table)
		})
	}
}

// refused requires that another process does not get a table that this one has.
func refused(t *testing.T, table, when string) {
	t.Helper()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), holder+"=/"+table)
	if out, err := other.Output(); err == nil || !strings.Contains(string(out), fmt.Sprintf("process %d ", os.Getpid())) {
		t.Errorf("a second daemon, %s: %s, %v", when, out, err)
	}
}

// TestFullQueueOfADaemon_I7: a daemon that runs as a user of its own keeps its table, from
// root too, while a stranger fills the queue of its name.
func TestFullQueueOfADaemon_I7(t *testing.T) {
	testenv.Require(t, testenv.Root)
	t.Parallel()
	table := tableName()
	startWith(t, holder+"=/"+table, &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: []uintptr{unix.CAP_NET_ADMIN},
	})
	fill(t, "sessiond/table/"+table)
	if lock, err := LockTable(t.Context(), "", table); err == nil {
		t.Errorf("a second daemon has the table, %v", lock.Close())
	}
}

// fill asks at a name until it takes no more, and goes on asking to the end of the test.
func fill(t *testing.T, text string) {
	t.Helper()
	for range 2 * waiting {
		fd, err := openSocket()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + text}) != nil {
			return
		}
	}
	t.Fatal("it takes all who ask")
}

// TestOneOfManyBesideAStranger: of several daemons that start at once while a stranger has
// the table's name, one gets the table.
func TestOneOfManyBesideAStranger_I7(t *testing.T) {
	testenv.Require(t, testenv.Root)
	t.Parallel()
	table := tableName()
	startSquatter(t, "sessiond/table/"+table)
	const many = 4
	locks := make(chan *Table, many)
	var starts sync.WaitGroup
	for range many {
		starts.Go(func() {
			if lock, err := LockTable(t.Context(), "", table); err == nil {
				locks <- lock
			}
		})
	}
	starts.Wait()
	close(locks)
	got := 0
	for lock := range locks {
		got++
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	}
	if got != 1 {
		t.Errorf("%d of %d got the table", got, many)
	}
}

// TestStrangerIsNoSignOfLife_I10: a stranger that takes the name of a killed instance does not
// keep the next daemon from its groups.
func TestStrangerIsNoSignOfLife_I10(t *testing.T) {
	testenv.Require(t, testenv.Root)
	w := newWorld(t)
	dead := w.claimant("cgn1", false)
	w.must(dead.Claim(t.Context(), "default"))
	w.must(dead.Close())
	startSquatter(t, "full "+signOf(dead.self.Instance))
	began := time.Now()
	w.must(w.claimant("cgn1", false).Claim(t.Context(), "default"))
	if took := time.Since(began); took > Lease/4 {
		t.Errorf("the group of a dead instance is taken after %v", took)
	}
}

// TestShowsAdministrator reads the status of processes.
func TestShowsAdministrator(t *testing.T) {
	const status = "Name:\tx\nUid:\t999\t%s\t999\t999\nCapEff:\t%s\n"
	for what, c := range map[string]struct {
		effective, capabilities string
		want                    bool
	}{
		"the daemon as a user of its own": {"999", "0000000000003000", true},
		"a user who may nothing":          {"999", "0000000000000000", false},
		"a user who may send raw packets": {"999", "0000000000002000", false},
		"a user who began sudo":           {"0", "000001ffffffffff", false},
	} {
		if got := showsAdministrator(fmt.Sprintf(status, c.effective, c.capabilities), 999); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
	if showsAdministrator("Uid:\t999\t999\t999\t999\n", 999) || showsAdministrator("CapEff:\t0000000000003000\n", 999) || showsAdministrator("", 999) {
		t.Error("a status that lacks something tells of a daemon")
	}
}

// TestManyAskers: the owner of a name is found even with a full queue of connections.
func TestManyAskers(t *testing.T) {
	t.Parallel()
	table := tableName()
	l, err := LockTable(t.Context(), "", table)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range waiting + 50 {
		if taken, err := whoHas("", "sessiond/table/"+table); err != nil || taken == nil {
			t.Fatalf("the name is free: %v, %v", taken, err)
		}
	}
}

// TestNamespaces: tables of the same name in two namespaces are different, and
// a namespace is the same under its name and its path.
func TestNamespaces(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Nft)
	t.Parallel()
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	table, inside := tableName(), lab.CGN.Name()
	startHolder(t, inside, table)
	own, err := LockTable(t.Context(), "", table)
	if err != nil {
		t.Fatalf("the table of another namespace is locked here: %v", err)
	}
	if err := own.Close(); err != nil {
		t.Error(err)
	}
	if _, err := LockTable(t.Context(), "/run/netns/"+inside, table); err == nil {
		t.Error("the same table, its namespace named by its path, was locked twice")
	}
	if a, b, own := place(inside), place("/run/netns/"+inside), place(""); a == "" || a != b || a == own {
		t.Errorf("places: %q and %q of one namespace, %q of another", a, b, own)
	}
}

// world is a Redis for claimants.
type world struct {
	t      *testing.T
	server *testenv.RedisServer
	db     *subscriberdb.DB
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server := testenv.StartRedis(t)
	client, err := redisconn.Dial([]string{server.URL}, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	db, err := subscriberdb.New(subscriberdb.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, server, db}
}

// claimant returns a claimant, as of another machine if elsewhere.
func (w *world) claimant(node string, elsewhere bool) *Claimant {
	w.t.Helper()
	c, err := New(Options{Store: w.db, Node: node, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	if elsewhere {
		c.self.Place = "another boot/net:1"
		line, err := json.Marshal(c.self)
		if err != nil {
			w.t.Fatal(err)
		}
		c.line = string(line)
	}
	return c
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) cli(args ...string) {
	w.t.Helper()
	out, err := exec.Command("redis-cli", append([]string{"-s", w.server.Socket}, args...)...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
}

// keep renews the leases like a daemon, until the test ends or stop is called.
func keep(t *testing.T, c *Claimant) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() {
		for clock.Sleep(ctx, RenewEvery) == nil {
			_ = c.Renew(ctx)
		}
	})
	stop = func() { cancel(); task.Wait() }
	t.Cleanup(stop)
	return stop
}

// TestOtherNode: a group that another node serves is refused, with its owner
// and the end of its lease; once given up it is taken at once.
func TestOtherNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.claimant("cgn1", false), w.claimant("cgn2", true)
	w.must(first.Claim(t.Context(), "default"))
	keep(t, first)
	began := time.Now()
	err := second.Claim(t.Context(), "default")
	if !errors.Is(err, ErrOwned) || !strings.Contains(err.Error(), `node "cgn1"`) || !strings.Contains(err.Error(), "lasts until") {
		t.Fatalf("the second node: %v", err)
	}
	if took := time.Since(began); took > Lease/2 {
		t.Errorf("refused after %v: a sign of life comes every %v", took, RenewEvery)
	}
	if second.Holds("default") || !first.Holds("default") {
		t.Error("the group changed hands")
	}
	w.must(second.Claim(t.Context(), "other"))
	w.must(first.LeaveAll(t.Context()))
	began = time.Now()
	w.must(second.Claim(t.Context(), "default"))
	if took := time.Since(began); took > time.Second {
		t.Errorf("a group that was given up was taken after %v", took)
	}
}

// TestDeadNode: the group of a node that does not renew its lease is taken once
// the lease has run out, and not before.
func TestDeadNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead, heir := w.claimant("cgn1", true), w.claimant("cgn2", false)
	w.must(dead.Claim(t.Context(), "default"))
	began := time.Now()
	w.must(heir.Claim(t.Context(), "default"))
	if took := time.Since(began); took < Lease-time.Second || took > Lease+5*time.Second {
		t.Errorf("taken after %v, the lease is %v", took, Lease)
	}
}

// TestDeadProcess_I7: the group of a process that is known to be dead, because it
// was in this namespace, is taken at once.
func TestDeadProcess_I7(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	killed, next := w.claimant("cgn1", false), w.claimant("cgn1", false)
	w.must(killed.Claim(t.Context(), "default"))
	w.must(killed.Close()) // as the kernel does when a process is killed
	began := time.Now()
	w.must(next.Claim(t.Context(), "default"))
	if took := time.Since(began); took > time.Second {
		t.Errorf("taken after %v", took)
	}
}

// TestEmptied_I6: the owner of a group takes it again after Redis was emptied.
func TestEmptied_I6(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.claimant("cgn1", false)
	w.must(c.Claim(t.Context(), "default"))
	w.cli("FLUSHALL")
	w.must(c.Renew(t.Context()))
	line, left, err := w.db.Owner(t.Context(), "default")
	if err != nil || line != c.line || left <= 0 || left > Lease {
		t.Errorf("owner %q for %v, %v", line, left, err)
	}
	if !c.Holds("default") {
		t.Error("the group is not ours")
	}
}

// TestRedisAway: without Redis a lease is in doubt after its time, but not
// lost.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.claimant("cgn1", false)
	w.must(c.Claim(t.Context(), "default"))
	w.server.Kill()
	if err := c.Renew(t.Context()); err == nil || errors.Is(err, ErrOwned) {
		t.Errorf("renewed without Redis: %v", err)
	}
	if !c.Holds("default") {
		t.Error("the lease has not run out yet")
	}
	c.mu.Lock()
	c.until["default"] = time.Now().Add(-time.Second)
	c.mu.Unlock()
	if c.Holds("default") {
		t.Error("the lease has run out")
	}
	w.server.Start(t)
	w.must(c.Renew(t.Context()))
	if !c.Holds("default") {
		t.Error("the group is not ours again")
	}
}

// TestTakenOver: a lease that shows another owner is in doubt, and lost once
// that owner renews it. A lease that is not renewed, as after an old backup,
// runs out, and is taken again.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paused, other := w.claimant("cgn1", false), w.claimant("cgn2", true)
	w.must(paused.Claim(t.Context(), "default"))
	w.cli("DEL", "sessiond:{default}:owner") // as if the lease had run out
	w.must(other.Claim(t.Context(), "default"))
	w.must(paused.Renew(t.Context()))
	if paused.Holds("default") {
		t.Error("another's group is held")
	}
	w.must(paused.Renew(t.Context())) // no sign of life yet
	var err error
	deadline := time.Now().Add(5 * time.Second)
	for err == nil && time.Now().Before(deadline) {
		w.must(other.Renew(t.Context()))
		err = paused.Renew(t.Context())
	}
	if !errors.Is(err, ErrOwned) || !strings.Contains(err.Error(), "cgn2") {
		t.Errorf("after the other's sign of life: %v", err)
	}

	w.cli("PEXPIRE", "sessiond:{default}:owner", "1")
	for !paused.Holds("default") && time.Now().Before(deadline) {
		w.must(paused.Renew(t.Context()))
	}
	if !paused.Holds("default") {
		t.Error("a lease that ran out was not taken again")
	}
}

// TestNoEnd: a lease without an end, set by hand, is respected.
func TestNoEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cli("SET", "sessiond:{default}:owner", "maintenance, ask Joe")
	err := w.claimant("cgn1", false).Claim(t.Context(), "default")
	if !errors.Is(err, ErrOwned) || !strings.Contains(err.Error(), "ask Joe") || !strings.Contains(err.Error(), "no end") {
		t.Errorf("%v", err)
	}
}

// TestLeftForGood: Renew does not take a group again that was given up.
func TestLeftForGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.claimant("cgn1", false)
	w.must(c.Claim(t.Context(), "default"))
	w.must(c.Leave(t.Context(), "default"))
	w.must(c.Renew(t.Context()))
	if line, _, err := w.db.Owner(t.Context(), "default"); err != nil || line != "" {
		t.Errorf("owner %q, %v", line, err)
	}
}

// TestLeavesBesideHangingRenewals_I7: while Redis hangs and several tasks renew the leases of many
// groups, giving all up takes no longer than it may: the end of the daemon waits for it.
func TestLeavesBesideHangingRenewals_I7(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.claimant("cgn1", false)
	for i := range 8 {
		w.must(c.Claim(t.Context(), fmt.Sprintf("g%d", i)))
	}
	w.cli("CLIENT", "PAUSE", "60000")
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	for range 3 {
		tasks.Go(func() { _ = c.Renew(ctx) })
	}
	defer tasks.Wait()
	defer cancel()
	short, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer stop()
	began := time.Now()
	if err := c.LeaveAll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gave up all leases while Redis hangs: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}
