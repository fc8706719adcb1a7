package faults

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "run one world, with this seed, to replay it")
	firstFlag  = flag.Uint64("first", 1, "seed of the first world")
	faultsFlag = flag.Int("faults", 72, "faults to inject, of all worlds together")
	eachFlag   = flag.Int("each", 24, "faults of one world")
	onlyFlag   = flag.String("only", "", "names of faults, with commas: each round has these, whether or not they may be combined")
	worldsFlag = flag.Int("worlds", 3, "worlds side by side")
	groupsFlag = flag.String("groups", "default,growing,cone,limited,fixed", "groups whose subscribers come and go, with commas")
)

var programs *rig.Programs

func TestMain(m *testing.M) {
	flag.Parse()
	names := strings.Split(*groupsFlag, ",")
	groups = slices.DeleteFunc(groups, func(g *groupSpec) bool { return !slices.Contains(names, g.name) })
	redis.SetLogger(silent{}) // it logs each fault at length
	os.Exit(rig.Main(m, &programs))
}

// TestFaults_I1_I2_I3_I4_I6_I7_I8_I9_DEL07_DEL08_DEL09_DEL10_DEL11_DEL13_NAT07_NAT27_NAT28_NAT29_NAT30_NAT32_NAT35_NAT38_NAT40
// compares the state after random traffic and random faults with a simple model.
func TestFaults_I1_I2_I3_I4_I6_I7_I8_I9_DEL07_DEL08_DEL09_DEL10_DEL11_DEL13_NAT07_NAT27_NAT28_NAT29_NAT30_NAT32_NAT35_NAT38_NAT40(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Redis|testenv.Nft|testenv.Conntrack)
	t.Parallel()
	r := newReport()
	defer func() { t.Logf("in all:\n%s", r) }()
	if *seedFlag != 0 {
		runWorld(t, *seedFlag, *faultsFlag, r)
		return
	}
	var next atomic.Uint64
	var begun atomic.Int64 // faults of worlds that have begun
	next.Store(*firstFlag - 1)
	t.Run("worlds", func(t *testing.T) {
		for i := range *worldsFlag {
			t.Run(fmt.Sprint(i+1), func(t *testing.T) {
				t.Parallel()
				for each := int64(*eachFlag); begun.Add(each)-each < int64(*faultsFlag) && !t.Failed(); {
					seed := next.Add(1)
					t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runWorld(t, seed, *eachFlag, r) })
				}
			})
		}
	})
}

// runWorld runs one world until the given number of faults was injected.
func runWorld(t *testing.T, seed uint64, faults int, r *report) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	w, err := newWorld(ctx, t, seed, r)
	if w != nil && w.Rig != nil {
		defer func() {
			if t.Failed() {
				t.Logf("replay with: go test ./test/faults -run TestFaults -v -seed %d -faults %d -groups %s\nwhat was done:\n%s\nsessiond printed:\n%s",
					seed, faults, *groupsFlag, strings.Join(w.history, "\n"), tail(quiet(w.Daemon.Log()), 20_000))
			}
			if err := w.close(); err != nil {
				t.Error(err)
			}
		}()
	}
	if err != nil {
		t.Fatal(err)
	}
	for done, number := 0, 1; done < faults; number++ {
		n, err := w.round(ctx, number)
		if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, number, err)
		}
		done += n
	}
	if err := w.massDeletion(ctx); err != nil {
		t.Fatalf("seed %d, all records deleted: %v", seed, err)
	}
	if err := w.end(ctx); err != nil {
		t.Fatalf("seed %d, at the end: %v", seed, err)
	}
	t.Logf("seed %d: done, %d faults in all worlds", seed, r.total())
}

// quiet leaves out the log lines of the harness's own calls.
func quiet(log string) string {
	var kept []string
	for line := range strings.Lines(log) {
		if !strings.Contains(line, `"msg":"grpc call","method":"/sessiond.v1.NatService`) &&
			!strings.Contains(line, `ControlService/GetStatus`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
