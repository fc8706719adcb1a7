// Command natpmp asks a gateway by jackpal/go-nat-pmp. Its module is apart, so that sessiond does not
// depend on clients of other projects.
//
//	natpmp GATEWAY address
//	natpmp GATEWAY udp|tcp INSIDE_PORT OUTSIDE_PORT SECONDS
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"

	natpmp "github.com/jackpal/go-nat-pmp"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "natpmp:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	switch {
	case len(args) == 2 && args[1] == "address":
		return printAddress(args[0], out)
	case len(args) == 5:
		return askNATPMP(args, out)
	}
	return errors.New("usage: natpmp GATEWAY address | natpmp GATEWAY udp|tcp INSIDE_PORT OUTSIDE_PORT SECONDS")
}

func printAddress(gateway string, out io.Writer) error {
	a, err := natpmp.NewClient(net.ParseIP(gateway)).GetExternalAddress()
	if err == nil {
		_, err = fmt.Fprintln(out, netip.AddrFrom4(a.ExternalIPAddress))
	}
	return err
}

// askNATPMP asks for a mapping: gateway, protocol, inside port, outside port, seconds.
func askNATPMP(args []string, out io.Writer) error {
	var numbers [3]int
	for i := range numbers {
		n, err := strconv.Atoi(args[2+i])
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	m, err := natpmp.NewClient(net.ParseIP(args[0])).AddPortMapping(args[1], numbers[0], numbers[1], numbers[2])
	if err == nil {
		_, err = fmt.Fprintln(out, m.MappedExternalPort, m.PortMappingLifetimeInSeconds)
	}
	return err
}
