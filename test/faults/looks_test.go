package faults

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// lookNft reads the maps and sets as nft prints them.
func (w *world) lookNft(ctx context.Context, s *snapshot) error {
	out, err := w.Lab.CGN.Output(ctx, "nft", "-j", "list", "table", "ip", "sessiond")
	if err != nil {
		return err
	}
	type elements struct {
		Name string            `json:"name"`
		Elem []json.RawMessage `json:"elem"`
	}
	var listing struct {
		Nftables []struct {
			Map *elements `json:"map"`
			Set *elements `json:"set"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(out, &listing); err != nil {
		return fmt.Errorf("nft -j list table: %w", err)
	}
	s.gates, s.blocks, s.named = map[netip.Addr]string{}, map[netip.Addr]string{}, map[string][]string{}
	for _, object := range listing.Nftables {
		list := cmp.Or(object.Map, object.Set)
		if list == nil {
			continue
		}
		for _, e := range list.Elem {
			if err := s.element(list.Name, e); err != nil {
				return fmt.Errorf("element of %s: %w: %s", list.Name, err, e)
			}
		}
	}
	return nil
}

func (s *snapshot) element(name string, element json.RawMessage) error {
	if name != "gate" && name != "block" {
		var parts any
		if err := json.Unmarshal(element, &parts); err != nil {
			return err
		}
		s.named[name] = append(s.named[name], strings.Join(partsOf(parts), " "))
		return nil
	}
	var pair [2]json.RawMessage
	if err := json.Unmarshal(element, &pair); err != nil {
		return err
	}
	var inside netip.Addr
	if err := json.Unmarshal(pair[0], &inside); err != nil {
		return err
	}
	switch name {
	case "gate":
		var verdict map[string]json.RawMessage
		if err := json.Unmarshal(pair[1], &verdict); err != nil {
			return err
		}
		for v := range verdict {
			s.gates[inside] = v
		}
	case "block":
		block, err := parseRange(pair[1])
		s.blocks[inside] = block
		return err
	}
	return nil
}

// partsOf returns the addresses, ports and words of an element, in order, without its
// timeout and limit: {"elem": {"val": {"concat": ["udp", "198.51.100.9", 2048]}, "expires": 9}}.
func partsOf(element any) []string {
	switch e := element.(type) {
	case map[string]any:
		for _, key := range []string{"elem", "val", "concat", "prefix", "addr", "range"} {
			if inner, ok := e[key]; ok {
				return partsOf(inner)
			}
		}
		return nil
	case []any:
		var all []string
		for _, part := range e {
			all = append(all, partsOf(part)...)
		}
		return all
	}
	return []string{fmt.Sprint(element)}
}

// parseRange reads {"concat": ["198.51.100.0", {"range": [2048, 2111]}]}, in
// which nft writes a range of one address as a plain one.
func parseRange(value json.RawMessage) (string, error) {
	var concat struct {
		Concat [2]json.RawMessage `json:"concat"`
	}
	if err := json.Unmarshal(value, &concat); err != nil {
		return "", err
	}
	var outside netip.Addr
	var ports struct {
		Range [2]uint16 `json:"range"`
	}
	if err := json.Unmarshal(concat.Concat[0], &outside); err != nil {
		return "", err
	}
	if err := json.Unmarshal(concat.Concat[1], &ports); err != nil {
		return "", err
	}
	b := binding{Outside: outside, Blocks: []blockPorts{{ports.Range[0], ports.Range[1]}}}
	return b.block(), nil
}

// parseEntry reads a line of conntrack -L -o extended,id:
//
//	ipv4 2 udp 17 29 src=A dst=B sport=1 dport=2 src=B dst=C sport=2 dport=3 mark=0 use=1 id=7
//
// Entries of nobody inside are none.
func parseEntry(line string) (e entry, ok bool) {
	words := strings.Fields(line)
	if len(words) < 6 {
		return e, false
	}
	e.protocol, e.text = words[2], line
	seconds, err := strconv.Atoi(words[4])
	if err != nil {
		return e, false // a protocol of others
	}
	e.expires = time.Duration(seconds) * time.Second
	var tuples [2]struct{ src, dst, sport, dport string }
	tuple := -1
	for _, word := range words[5:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "src":
			tuple = min(tuple+1, 1)
			tuples[tuple].src = value
		case "dst":
			tuples[tuple].dst = value
		case "sport":
			tuples[tuple].sport = value
		case "dport":
			tuples[tuple].dport = value
		case "id": // of ICMP, then of the entry
			if e.protocol == "icmp" && tuples[tuple].sport == "" {
				tuples[tuple].sport, tuples[tuple].dport = value, value
			} else {
				e.id = value
			}
		}
	}
	var ends [4]netip.AddrPort
	for i, text := range []string{
		tuples[0].src + ":" + tuples[0].sport, tuples[0].dst + ":" + tuples[0].dport,
		tuples[1].src + ":" + tuples[1].sport, tuples[1].dst + ":" + tuples[1].dport,
	} {
		if ends[i], err = netip.ParseAddrPort(text); err != nil {
			return e, false // a protocol without ports
		}
	}
	switch {
	case insidePrefix.Contains(ends[0].Addr()):
		e.inside, e.remote, e.seen = ends[0], ends[1], ends[3]
	case insidePrefix.Contains(ends[2].Addr()):
		e.inside, e.remote, e.seen, e.inbound = ends[2], ends[0], ends[1], true
	default:
		return e, false
	}
	return e, true
}

func (w *world) lookConntrack(ctx context.Context, s *snapshot) error {
	out, err := w.Lab.CGN.Output(ctx, "conntrack", "-L", "-o", "extended,id")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		if e, ok := parseEntry(strings.TrimSpace(line)); ok {
			s.entries = append(s.entries, e)
		}
	}
	return nil
}
