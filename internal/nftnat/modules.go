package nftnat

import (
	"errors"
	"slices"

	"github.com/sessiond/sessiond/internal/kmodule"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// unanswered names the module that gives the kernel its netfilter sockets.
func unanswered(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return kmodule.Missing("nfnetlink", err)
	}
	return err
}

// unloaded returns an error with the module whose absence made an operation on a new table
// fail.
func unloaded(err error) error {
	var refused *wire.Error
	if !errors.As(err, &refused) || !kmodule.Lacks(err) {
		return err
	}
	if module := moduleOf(refused.Op); module != "" {
		return kmodule.Missing(module, err)
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
