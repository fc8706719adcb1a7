package nftnat

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// lacks reports whether the kernel refused an unknown kind of object: a module is missing, and
// could not be loaded on demand.
func lacks(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// needs names the missing module, and the command that loads it.
func needs(module string, err error) error {
	return fmt.Errorf("the kernel module %s is missing: load it (modprobe %s), at each boot by a line in /etc/modules-load.d/sessiond.conf, or install the kernel that has it: %w",
		module, module, err)
}

// unanswered names the module that gives the kernel its netfilter sockets.
func unanswered(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return needs("nfnetlink", err)
	}
	return err
}

// unloaded names the module whose absence made an operation on a new table fail.
func unloaded(err error) error {
	var refused *wire.Error
	if !errors.As(err, &refused) || !lacks(err) {
		return err
	}
	if module := moduleOf(refused.Op); module != "" {
		return needs(module, err)
	}
	return err
}

func moduleOf(op wire.Op) string {
	switch op.Verb {
	case "add table":
		return "nf_tables"
	case "add ct timeout":
		return "nft_ct"
	case "add chain":
		if slices.ContainsFunc(newChains(), func(c chain) bool { return c.name == op.Object && c.kind == "nat" }) {
			return "nft_chain_nat"
		}
	case "add rule to chain":
		switch op.Object {
		case chainToInside, chainDraining:
			return "nft_ct"
		case chainTranslate:
			return "nft_nat"
		case chainUngated:
			return "nft_limit"
		}
	}
	return ""
}
