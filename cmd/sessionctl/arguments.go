package main

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// address checks an inside or outside address on the command line.
func address(text string) (string, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return "", usagef("%q is no IPv4 address", text)
	}
	return text, nil
}

// prefix checks an address or prefix; empty is allowed.
func prefix(flag, text string) error {
	if text == "" {
		return nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return nil
	}
	if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() {
		return nil
	}
	return usagef("%s: %q is no IPv4 address or prefix", flag, text)
}

// endpoint splits A or A:P, where A may be a prefix and ":P" alone means every
// address.
func endpoint(flag, text string) (addr string, port uint32, err error) {
	addr, portText, found := strings.Cut(text, ":")
	if err := prefix(flag, addr); err != nil {
		return "", 0, err
	}
	if !found {
		return addr, 0, nil
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || n == 0 {
		return "", 0, usagef("%s: %q is no port, 1 to 65535", flag, portText)
	}
	return addr, uint32(n), nil
}

// protocol reads tcp, udp, icmp or an IANA number.
func protocol(text string) (pb.Protocol, error) {
	if text == "" {
		return pb.Protocol_PROTOCOL_UNSPECIFIED, nil
	}
	if n, ok := pb.Protocol_value["PROTOCOL_"+strings.ToUpper(text)]; ok && n != 0 {
		return pb.Protocol(n), nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n == 0 {
		return 0, usagef("--protocol: %q is none of tcp, udp, icmp, or a number 1 to 255", text)
	}
	return pb.Protocol(n), nil
}

// protocolName is the reverse of protocol.
func protocolName(p pb.Protocol) string {
	if name, ok := pb.Protocol_name[int32(p)]; ok {
		return strings.ToLower(strings.TrimPrefix(name, "PROTOCOL_"))
	}
	return strconv.Itoa(int(p))
}

// subscriberFlags are the flags that select subscribers.
type subscriberFlags struct{ group, nas, user, inside string }

func (f *subscriberFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.group, "group", "", "only this `group`")
	flags.StringVar(&f.nas, "nas", "", "only subscribers of this `NAS`")
	flags.StringVar(&f.user, "user", "", "only this `User-Name`")
	flags.StringVar(&f.inside, "inside", "", "only inside addresses in this `prefix`")
}
