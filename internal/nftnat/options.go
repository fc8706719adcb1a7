package nftnat

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
)

// Options name the place and the initial settings of the NAT.
type Options struct {
	NetNS             string         // a name under /run/netns, a path, or "" for the process's own namespace
	Table             string         // required: name of the owned nftables table, family ip
	InsideInterfaces  []string       // required: towards the subscribers; names, or beginnings of names and "*"
	OutsideInterfaces []string       // required: towards the internet; exact names
	InsidePrefixes    []netip.Prefix // required: the subscribers' addresses
	OutsidePrefixes   []netip.Prefix // public pools; each gets a blackhole route
	KeepPrefixes      bool           // prefixes that an earlier start left in the kernel stay until SetPrefixes
	Timeouts          nat.Timeouts   // required: whole seconds
	MaxSessions       int            // of one inside address; 0 for no bound
	OutsideToOthers   bool           // outside hosts may begin flows to networks that are neither inside nor outside
	MaxUngated        int            // new flows a second to the machine itself, of all inside addresses without an open gate, and of all hosts outside; 0 for no bound
	Logger            *slog.Logger   // required

	full crowded // subscribers with more than MaxSessions
}

func (o Options) validate() error {
	switch {
	case o.Table == "":
		return errors.New("nftnat: Options.Table is empty")
	case len(o.InsideInterfaces) == 0:
		return errors.New("nftnat: Options.InsideInterfaces is empty")
	case len(o.OutsideInterfaces) == 0:
		return errors.New("nftnat: Options.OutsideInterfaces is empty")
	case o.Logger == nil:
		return errors.New("nftnat: Options.Logger is nil")
	}
	if err := validateInterfaces(o.InsideInterfaces, o.OutsideInterfaces); err != nil {
		return err
	}
	if err := CheckPrefixes(o.InsidePrefixes, o.OutsidePrefixes); err != nil {
		return err
	}
	return o.Timeouts.Check()
}

// maxInterfaceName is IFNAMSIZ less the terminating zero.
const maxInterfaceName = 15

func validateInterfaces(lists ...[]string) error {
	seen := make(map[string]bool)
	for _, list := range lists {
		for _, name := range list {
			switch {
			case name == "" || name == anySuffix || len(name) > maxInterfaceName:
				return fmt.Errorf("nftnat: interface name %q is not 1 to %d bytes long", name, maxInterfaceName)
			case seen[name]:
				return fmt.Errorf("nftnat: interface %q is listed twice", name)
			}
			seen[name] = true
		}
	}
	return nil
}

// CheckPrefixes returns an error if there is no inside prefix, or if a prefix is not IPv4.
func CheckPrefixes(inside, outside []netip.Prefix) error {
	if len(inside) == 0 {
		return errors.New("nftnat: InsidePrefixes is empty")
	}
	for _, p := range slices.Concat(inside, outside) {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("nftnat: prefix %v is not IPv4", p)
		}
	}
	return nil
}
