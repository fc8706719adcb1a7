package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/netlab"
)

// network holds the settings that a container engine leaves to its containers.
type network struct {
	addresses []string // address/length, added beside an address of the same prefix
	routes    []string // destination=gateway
	names     []string // address=interface name
}

func (n *network) flags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&n.addresses, "address", nil, "add an `ADDRESS/LENGTH` to the interface of that prefix")
	fs.StringSliceVar(&n.routes, "route", nil, "route a `PREFIX=GATEWAY`")
	fs.StringSliceVar(&n.names, "name", nil, "rename the interface that has the address (`ADDRESS=NAME`)")
}

func newRoute() *cobra.Command {
	var n network
	cmd := &cobra.Command{
		Use:   "route",
		Short: "Set up addresses, routes and interface names, then exit",
		Long: "Set up addresses, routes and interface names, then exit. For containers without\n" +
			"a shell, run beside them in their network namespace. Needs CAP_NET_ADMIN.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return n.setUp(cmd.Context()) },
	}
	n.flags(cmd.Flags())
	return cmd
}

// newStay returns the command of a host that does nothing by itself.
func newStay() *cobra.Command {
	var n network
	cmd := &cobra.Command{
		Use:   "stay",
		Short: "Set up addresses, routes and interface names, then stay until a signal",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := n.setUp(cmd.Context()); err != nil {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	n.flags(cmd.Flags())
	return cmd
}

// setUp applies the flags to the namespace of the process.
func (n *network) setUp(ctx context.Context) error {
	here := netlab.Current()
	for _, step := range []struct {
		args  []string
		apply func(context.Context, *netlab.Namespace, string) error
	}{{n.names, rename}, {n.addresses, addAddress}, {n.routes, addRoute}} {
		for _, arg := range step.args {
			if err := step.apply(ctx, here, arg); err != nil {
				return fmt.Errorf("%s: %w", arg, err)
			}
		}
	}
	return nil
}

// rename waits for the address, because container engines attach one network
// after another.
func rename(ctx context.Context, ns *netlab.Namespace, arg string) error {
	address, name, _ := strings.Cut(arg, "=")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	for {
		found, err := ns.RenameInterface(addr, name)
		if found || err != nil {
			return err
		}
		if err := clock.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func addAddress(_ context.Context, ns *netlab.Namespace, arg string) error {
	prefix, err := netip.ParsePrefix(arg)
	if err != nil {
		return err
	}
	name, err := interfaceOf(prefix)
	if err != nil {
		return err
	}
	return ns.Configure(netlab.Interface{Name: name, Addresses: []netip.Prefix{prefix}})
}

// interfaceOf returns the name of the interface that has an address in the
// prefix.
func interfaceOf(prefix netip.Prefix) (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Masked() == prefix.Masked() {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has an address of %s", prefix.Masked())
}

func addRoute(_ context.Context, ns *netlab.Namespace, arg string) error {
	destination, gateway, _ := strings.Cut(arg, "=")
	prefix, err := netip.ParsePrefix(destination)
	if err != nil {
		return err
	}
	via, err := netip.ParseAddr(gateway)
	if err != nil {
		return err
	}
	return ns.AddRoute(netlab.Route{Destination: prefix, Gateway: via})
}
