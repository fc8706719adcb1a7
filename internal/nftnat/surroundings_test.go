package nftnat

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// TestWarnsOfSurroundings: a start warns of an interface that does not exist, and of
// conntrack accounting that is off, and of nothing that is in order. A prefix of interface
// names matches any interface whose name begins with it.
func TestWarnsOfSurroundings(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	begin := netlab.InsideInterface[:len(netlab.InsideInterface)-1] + anySuffix
	for _, tt := range []struct{ inside, outside, acct, want string }{
		{netlab.InsideInterface, netlab.OutsideInterface, "1", ""},
		{netlab.InsideInterface, "wan7", "0", "interface=wan7 nf_conntrack_acct is off"},
		{begin, netlab.OutsideInterface, "1", ""},
		{"ppp*", netlab.OutsideInterface, "1", "interface=ppp*"},
	} {
		run(t, lab, "sysctl", "-qw", "net.netfilter.nf_conntrack_acct="+tt.acct)
		var log bytes.Buffer
		o := labOptions(lab)
		o.InsideInterfaces, o.OutsideInterfaces = []string{tt.inside}, []string{tt.outside}
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		k := openKernel(t, o)
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		for _, said := range []string{"interface=", "nf_conntrack_acct is off"} {
			if got := strings.Contains(log.String(), said); got != strings.Contains(tt.want, said) {
				t.Errorf("inside %s, outside %s, acct %s: logged\n%s", tt.inside, tt.outside, tt.acct, log.String())
			}
		}
	}
}

// TestNoSocketsToNetfilter: a start's first socket already needs a module.
func TestNoSocketsToNetfilter(t *testing.T) {
	err := unanswered(fmt.Errorf("open nf_tables socket: %w", unix.EPROTONOSUPPORT))
	if !strings.Contains(err.Error(), "modprobe nfnetlink") || !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Error(err)
	}
	if err := unanswered(unix.EMFILE); strings.Contains(err.Error(), "modprobe") {
		t.Error(err)
	}
}

// TestMissingModulesAreNamed: the kernel refuses each part of the table as one without its
// module does. The parts include every operation of a start.
func TestMissingModulesAreNamed(t *testing.T) {
	for op, module := range map[wire.Op]string{
		{Verb: "add table", Object: testTable}:              "nf_tables",
		{Verb: "add ct timeout", Object: "tcp-7440-240"}:    "nft_ct",
		{Verb: "add chain", Object: chainSrcnat}:            "nft_chain_nat",
		{Verb: "add chain", Object: chainInput}:             "nft_chain_nat",
		{Verb: "add chain", Object: chainForward}:           "",
		{Verb: "add rule to chain", Object: chainDraining}:  "nft_ct",
		{Verb: "add rule to chain", Object: chainToInside}:  "nft_ct",
		{Verb: "add rule to chain", Object: chainTranslate}: "nft_nat",
		{Verb: "add rule to chain", Object: chainUngated}:   "nft_limit",
		{Verb: "add rule to chain", Object: chainUnmapped}:  "nft_fib_ipv4",
		{Verb: "add rule to chain", Object: chainLimits}:    "nft_limit",

		{Verb: "add rule to chain", Object: chainUnreachable}: "nft_reject_ipv4",
		{Verb: "add rule to chain", Object: chainForward}:     "nft_ct",
		{Verb: "delete element", Object: mapGate}:             "",
	} {
		for _, errno := range []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP} {
			err := unloaded(fmt.Errorf("set up: %w", &wire.Error{Op: op, Errno: errno}))
			if named := strings.Contains(err.Error(), "modprobe "+module); named != (module != "") || !errors.Is(err, errno) {
				t.Errorf("%+v refused with %v: %v, want module %q", op, errno, err, module)
			}
		}
		if err := unloaded(&wire.Error{Op: op, Errno: unix.EBUSY}); strings.Contains(err.Error(), "modprobe") {
			t.Errorf("%+v refused as busy: %v", op, err)
		}
	}
}
