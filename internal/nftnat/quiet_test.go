package nftnat

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestRulesOfOthersHoldUpNobody: while others change a large ruleset faster than it can be
// read, the gates are programmed and a deleted table comes back at once. A rule that masks
// conntrack events is logged all the same, and so is its removal once the changes stop.
func TestRulesOfOthersHoldUpNobody(t *testing.T) {
	lab := newLab(t)
	var told logLines
	o := labOptions(lab)
	o.Logger = slog.New(slog.NewTextHandler(&told, nil))
	k := startKernel(t, o)

	var large strings.Builder
	large.WriteString("table ip other {\n chain c {\n")
	for i := range 10000 {
		fmt.Fprintf(&large, "  ip daddr 10.%d.%d.1 tcp dport %d counter drop\n", i>>8, i&255, 1+i%1000)
	}
	large.WriteString(" }\n}\n")
	file := filepath.Join(t.TempDir(), "large.nft")
	if err := os.WriteFile(file, []byte(large.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "-f", file)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var churn sync.WaitGroup
	churn.Go(func() {
		for ctx.Err() == nil {
			_, err := lab.CGN.Output(ctx, "nft", "add table ip churn; add chain ip churn c; add rule ip churn c counter; delete table ip churn")
			if err != nil && ctx.Err() == nil {
				t.Errorf("change rules: %v", err)
				return
			}
		}
	})
	defer churn.Wait()
	defer cancel()
	for round := range 10 {
		gate := nat.GateOpen
		if round%2 == 1 {
			gate = nat.GateClosed
		}
		apply(t, k, blockOf(alice, gate, 0))
	}
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	run(t, lab, "nft", "delete", "table", "ip", testTable)
	said := func(what string) func() error {
		return func() error {
			if !strings.Contains(told.String(), what) {
				return fmt.Errorf("not told %q", what)
			}
			return nil
		}
	}
	testenv.Succeeds(t, said("put right"))
	run(t, lab, "nft", "table inet quiet { chain c { type filter hook prerouting priority -150; ct event set label; }; }")
	testenv.Succeeds(t, said("table=quiet"))
	cancel()
	churn.Wait()
	run(t, lab, "nft", "delete", "table", "inet", "quiet")
	testenv.Succeeds(t, said("leave events out any more"))
	if strings.Contains(told.String(), "level=ERROR") {
		t.Error(told.String())
	}
}
