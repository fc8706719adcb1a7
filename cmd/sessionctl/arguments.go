package main

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// timeForms are the forms of times in arguments, for help.
const timeForms = "RFC 3339, local 2026-03-01 14:30, 14:30 (today), or -90m (ago)"

// localForms are the forms of local times, besides times of the day.
var localForms = []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"}

// moment reads a time: in RFC 3339, in local time, a time of this day, or a time before now, as
// -90m or -2d.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if ago, found := strings.CutPrefix(text, "-"); found {
		if days, whole := strings.CutSuffix(ago, "d"); whole {
			if n, err := strconv.ParseUint(days, 10, 16); err == nil {
				return now.AddDate(0, 0, -int(n)), nil
			}
		} else if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
			return now.Add(-d), nil
		}
		return time.Time{}, usagef("%s: %q is no time ago such as -30s, -90m, -1h30m or -2d", flag, text)
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, form := range localForms {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, form := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(form, text); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, usagef("%s: %q is no time; write %s", flag, text, timeForms)
}

// timestamp is moment for a request; empty is none.
func timestamp(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	t, err := moment(flag, text, now)
	if err != nil {
		return nil, err
	}
	return timestamppb.New(t), nil
}

// subscriberFlags are the flags that select subscribers.
type subscriberFlags struct {
	group, nas, user, inside, userPrefix, station, session string

	outside, remote, state string // of what NAT does for them
}

// register registers the flags that select by records.
func (f *subscriberFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.group, "group", "", "only this `group`")
	flags.StringVar(&f.nas, "nas", "", "only subscribers of this `NAS`")
	flags.StringVar(&f.user, "user", "", "only this `User-Name`")
	flags.StringVar(&f.userPrefix, "user-prefix", "", "only User-Names that begin with this `text`")
	flags.StringVar(&f.station, "calling-station-id", "", "only this `Calling-Station-Id`; of a MAC address, any notation")
	flags.StringVar(&f.session, "session-id", "", "only this `Acct-Session-Id`")
	flags.StringVar(&f.inside, "inside", "", "only inside addresses in this `prefix`")
}

// registerAll registers the flags that select by what NAT does, too.
func (f *subscriberFlags) registerAll(flags *pflag.FlagSet) {
	f.register(flags)
	flags.StringVar(&f.outside, "outside", "", "only those with this outside `address`, prefix, or address:port")
	flags.StringVar(&f.remote, "remote", "", "only those with a NAT session to this remote `A[:P]`; A may be a prefix")
	flags.StringVar(&f.state, "state", "", "only in this `state`: "+strings.Join(subscriberStates(), ", "))
}

// natFlags are the values of the flags that are no texts.
type natFlags struct {
	outside, remote         string
	outsidePort, remotePort uint32
	state                   pb.SubscriberState
}

// check checks the flags, and returns the values of those that are no texts.
func (f *subscriberFlags) check() (v natFlags, err error) {
	if err = prefix("--inside", f.inside); err != nil {
		return v, err
	}
	if v.outside, v.outsidePort, err = endpoint("--outside", f.outside); err != nil {
		return v, err
	}
	if v.remote, v.remotePort, err = endpoint("--remote", f.remote); err != nil {
		return v, err
	}
	if f.state == "" {
		return v, nil
	}
	n, known := pb.SubscriberState_value["SUBSCRIBER_STATE_"+strings.ToUpper(strings.ReplaceAll(f.state, "-", "_"))]
	if !known || n == 0 {
		return v, usagef("--state: %q is none of %s", f.state, strings.Join(subscriberStates(), ", "))
	}
	v.state = pb.SubscriberState(n)
	return v, nil
}

// subscriberStates are the values of --state.
func subscriberStates() (names []string) {
	for n := int32(1); pb.SubscriberState_name[n] != ""; n++ {
		names = append(names, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(pb.SubscriberState_name[n], "SUBSCRIBER_STATE_")), "_", "-"))
	}
	return names
}
