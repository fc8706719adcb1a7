package kmodule_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/kmodule"
)

func TestLacks(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{unix.ENOENT: true, unix.EPROTONOSUPPORT: true, unix.EPERM: false, unix.EBUSY: false} {
		if got := kmodule.Lacks(fmt.Errorf("add chain: %w", errno)); got != want {
			t.Errorf("%v: %t", errno, got)
		}
	}
	if kmodule.Lacks(nil) {
		t.Error("no error is one")
	}
}

func TestMissing(t *testing.T) {
	err := kmodule.Missing("nft_nat", unix.ENOENT)
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "modprobe nft_nat") {
		t.Error(err)
	}
	if missing := (*kmodule.MissingError)(nil); !errors.As(fmt.Errorf("start: %w", err), &missing) || missing.Module != "nft_nat" {
		t.Errorf("%v names the module %+v", err, missing)
	}
}
