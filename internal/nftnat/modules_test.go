package nftnat

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

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
		{Verb: "add rule to chain", Object: chainForward}:   "",
		{Verb: "delete element", Object: mapGate}:           "",
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
