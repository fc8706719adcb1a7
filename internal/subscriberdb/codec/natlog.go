package codec

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// The log of a group's NAT, and the hash of the blocks in service, have a line for each block:
//
//	<since> <outside>:<first>-<last> <inside> <the holder's fields as words>
//
// Times have nine decimals, so that a script compares them as texts. The line of a binding's
// first block has the word allocated_at= where the log has a later time than the binding.

// natStamp is the form of times in a NAT log.
const natStamp = "2006-01-02T15:04:05.000000000Z"

// NATStamp returns a time in UTC in the form of the NAT log.
func NATStamp(t time.Time) string { return string(appendNATStamp(nil, t)) }

// appendNATStamp appends the result of NATStamp; a time with another number of digits in
// its year becomes the nearest one that can be written.
func appendNATStamp(text []byte, t time.Time) []byte {
	t = t.UTC()
	switch year := t.Year(); {
	case year < 0:
		t = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	case year > 9999:
		t = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	}
	return t.AppendFormat(text, natStamp)
}

// AppendNATLine appends the line of a block in service: since when, and whose it is.
func AppendNATLine(text []byte, at time.Time, b nat.Block, holder *nat.Identity) []byte {
	text = append(appendNATStamp(text, at), ' ')
	text = strconv.AppendUint(append(b.Outside.AppendTo(text), ':'), uint64(b.First), 10)
	text = strconv.AppendUint(append(text, '-'), uint64(b.Last), 10)
	text = holder.Inside.AppendTo(append(text, ' '))
	text = appendWord(text, " user_name=", holder.UserName)
	text = appendWord(text, " client=", holder.Client)
	text = appendWord(text, " nas=", holder.NAS)
	if holder.NASAddress.IsValid() {
		text = appendWord(text, " nas_address=", holder.NASAddress.String())
	}
	text = appendWord(text, " acct_session_id=", holder.AcctSessionID)
	text = appendWord(text, " calling_station_id=", holder.CallingStationID)
	for _, p := range holder.IPv6Prefixes {
		text = p.AppendTo(append(text, " ipv6_prefix="...))
	}
	return text
}

// ParseNATLine parses a line of a block in service to the Allocated event of the block.
func ParseNATLine(group, line string) (nat.Event, error) {
	at, rest, _ := strings.Cut(line, " ")
	e := nat.Event{Kind: nat.Allocated, Group: group}
	var err error
	if e.At, err = ParseNATStamp(at); err == nil {
		err = parseNATHolder(&e, rest)
	}
	if err != nil {
		return nat.Event{}, fmt.Errorf("block in service %q: %w", line, err)
	}
	return e, nil
}

// ParseNATStamp parses the result of NATStamp.
func ParseNATStamp(word string) (time.Time, error) {
	if len(word) != len(natStamp) {
		return time.Time{}, fmt.Errorf("time %q", word)
	}
	t, ok := readStamp(word)
	if !ok {
		return time.Time{}, fmt.Errorf("time %q", word)
	}
	return t, nil
}

var errNoBlock = errors.New("no block")

// parseNATHolder parses a line without its time. Words of later versions are left out.
func parseNATHolder(e *nat.Event, text string) (err error) {
	block, rest, _ := strings.Cut(text, " ")
	if e.Block, err = parseNATBlock(block); err != nil {
		return err
	}
	inside, rest, _ := strings.Cut(rest, " ")
	if e.Holder.Inside, err = netip.ParseAddr(inside); err != nil {
		return err
	}
	for word := range strings.SplitSeq(rest, " ") {
		name, value, _ := strings.Cut(word, "=")
		if value, err = unescape(value); err != nil {
			return err
		}
		if err := setNATHolder(&e.Holder, name, value); err != nil {
			return err
		}
	}
	return nil
}

func setNATHolder(h *nat.Identity, name, value string) (err error) {
	switch name {
	case "user_name":
		h.UserName = value
	case "client":
		h.Client = value
	case "nas":
		h.NAS = value
	case "acct_session_id":
		h.AcctSessionID = value
	case "calling_station_id":
		h.CallingStationID = value
	case "nas_address":
		h.NASAddress, err = netip.ParseAddr(value)
	case "ipv6_prefix":
		var p netip.Prefix
		if p, err = netip.ParsePrefix(value); err == nil {
			h.IPv6Prefixes = append(h.IPv6Prefixes, p)
		}
	}
	return err
}

func parseNATBlock(text string) (b nat.Block, err error) {
	i, j := strings.LastIndexByte(text, ':'), strings.LastIndexByte(text, '-')
	if i < 0 || j < i {
		return b, errNoBlock
	}
	if b.Outside, err = netip.ParseAddr(text[:i]); err != nil {
		return b, err
	}
	first, err := strconv.ParseUint(text[i+1:j], 10, 16)
	if err != nil {
		return b, err
	}
	last, err := strconv.ParseUint(text[j+1:], 10, 16)
	if err != nil {
		return b, err
	}
	b.First, b.Last = nat.Port(first), nat.Port(last)
	if b.Last < b.First {
		return b, errNoBlock
	}
	return b, nil
}

// NATAllocatedAt returns when the binding of a first block was allocated, from the block's line
// and the time in it.
func NATAllocatedAt(line string, at time.Time) time.Time {
	_, word, later := strings.Cut(line, " allocated_at=")
	if !later {
		return at
	}
	word, _, _ = strings.Cut(word, " ")
	t, _ := ParseNATStamp(word) // the zero time for none
	return t
}
