package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// lookNft reads gate and block map as nft prints them.
func (w *world) lookNft(ctx context.Context, s *snapshot) error {
	out, err := w.Lab.CGN.Output(ctx, "nft", "-j", "list", "table", "ip", "sessiond")
	if err != nil {
		return err
	}
	var listing struct {
		Nftables []struct {
			Map *struct {
				Name string               `json:"name"`
				Elem [][2]json.RawMessage `json:"elem"`
			} `json:"map"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(out, &listing); err != nil {
		return fmt.Errorf("nft -j list table: %w", err)
	}
	s.gates, s.blocks = map[netip.Addr]string{}, map[netip.Addr]string{}
	for _, object := range listing.Nftables {
		if object.Map == nil {
			continue
		}
		for _, e := range object.Map.Elem {
			if err := s.element(object.Map.Name, e[0], e[1]); err != nil {
				return fmt.Errorf("element of map %s: %w: %s", object.Map.Name, err, e)
			}
		}
	}
	return nil
}

func (s *snapshot) element(name string, key, value json.RawMessage) error {
	var inside netip.Addr
	if err := json.Unmarshal(key, &inside); err != nil {
		return err
	}
	switch name {
	case "gate":
		var verdict map[string]json.RawMessage
		if err := json.Unmarshal(value, &verdict); err != nil {
			return err
		}
		for v := range verdict {
			s.gates[inside] = v
		}
	case "block":
		block, err := parseRange(value)
		s.blocks[inside] = block
		return err
	}
	return nil
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

// entryText finds the inside source, the destination of replies, and ports in a line of
// conntrack -L.
var entryText = regexp.MustCompile(`src=(\S+) dst=(\S+) .*? src=(\S+) dst=(\S+) .*?(?:dport|id)=(\d+).* id=(\d+)$`)

func (w *world) lookConntrack(ctx context.Context, s *snapshot) error {
	out, err := w.Lab.CGN.Output(ctx, "conntrack", "-L", "-o", "extended,id")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		m := entryText.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		inside, err := netip.ParseAddr(m[1])
		if err != nil || !insidePrefix.Contains(inside) {
			continue
		}
		seen, err := netip.ParseAddrPort(m[4] + ":" + m[5])
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		s.entries = append(s.entries, entry{inside, seen, m[6], line})
	}
	return nil
}
