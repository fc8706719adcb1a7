package lifecycle

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
)

// A subscriber that uses most of its ports and gets no further block has to find those that are
// left. nf_nat does not try each port of a larger range, so it misses some. That matters towards a
// remote endpoint to which most of the ports lead, since a port can be used once towards each. While
// it would miss them, new sessions to that endpoint get ports of a part of the range (decision 0060):
// of the one in which most of those find a port that are expected until the next look. That may be
// the whole range, which has more free ports than any part. Sessions to others have the whole range.

// nf_nat tries up to searchMost consecutive ports from a random one on, then half as many from
// another, and so on down to searchLeast. A range of searchMost ports is tried once, and in full
// (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c, since Linux 5.0).
const (
	searchMost  = 128
	searchLeast = 8
)

// Shares of new sessions that find a port: below enoughFound a range is not left whole, and from
// wellFound on it is given back.
const (
	enoughFound = 0.95
	wellFound   = 0.99
)

// A larger range has more ports, which others guess less easily (RFC 6056 section 3.1): a smaller
// one has to be better by smallerGain. Another part has to be better than the present one by
// moveGain.
const (
	smallerGain = 0.02
	moveGain    = 0.10
)

// firstBegins is the number of new sessions to one remote endpoint that are expected until the
// second look.
const firstBegins = 8

// narrowLow is the share of its ports below which a binding needs no parts.
const narrowLow = 0.65

// The remote endpoints that are looked at: for each protocol up to remotesMost of those to which
// most ports lead, at least remoteLeast.
const (
	remotesMost = 4
	remoteLeast = searchMost / 2
)

// remoteUse is the use of the ports of a range towards one remote endpoint.
type remoteUse struct {
	protocol uint8
	remote   netip.AddrPort
	whole    nat.Block // the range
	used     []bool    // each of its ports
	begins   int       // sessions that are expected until the next look
	part     nat.Block // of new sessions; the whole range where nf_nat finds their ports
}

// narrowing has the uses that a look at the ports of a binding found.
type narrowing struct {
	whole nat.Block
	uses  []remoteUse
}

// newNarrowing finds the remote endpoints to which most ports of a range lead.
func newNarrowing(u *PortUse, whole nat.Block) *narrowing {
	n := &narrowing{whole: whole}
	for _, protocol := range []uint8{nat.ProtocolTCP, nat.ProtocolUDP} {
		ports := map[netip.AddrPort]int{}
		for _, s := range u.towards {
			if s.protocol == protocol && whole.Contains(whole.Outside, s.port) {
				ports[s.remote]++
			}
		}
		maps.DeleteFunc(ports, func(_ netip.AddrPort, n int) bool { return n < remoteLeast })
		most := slices.SortedFunc(maps.Keys(ports), func(a, b netip.AddrPort) int {
			return cmp.Or(cmp.Compare(ports[b], ports[a]), a.Compare(b))
		})
		for _, remote := range most[:min(len(most), remotesMost)] {
			use := remoteUse{protocol, remote, whole, make([]bool, whole.Size()), firstBegins, whole}
			for _, s := range u.towards {
				if s.protocol == protocol && s.remote == remote && whole.Contains(whole.Outside, s.port) {
					use.used[s.port-whole.First] = true
				}
			}
			n.uses = append(n.uses, use)
		}
	}
	return n
}

// choose chooses the parts of new sessions, with what an earlier look found; nil for none.
func (n *narrowing) choose(earlier *narrowing) {
	for i := range n.uses {
		use := &n.uses[i]
		if earlier != nil && earlier.whole == n.whole {
			for k := range earlier.uses {
				if e := &earlier.uses[k]; e.protocol == use.protocol && e.remote == use.remote {
					use.part = e.part
					use.expect(e)
				}
			}
		}
		use.part = use.choose()
	}
}

// expect estimates, from an earlier look, how many sessions begin until the next one. Of those that
// found no port nothing is left to count.
func (use *remoteUse) expect(earlier *remoteUse) {
	begun := 0
	for i, used := range use.used {
		if used && !earlier.used[i] {
			begun++
		}
	}
	if freeOf(use.in(use.part)) == 0 {
		use.begins = max(2*earlier.begins, begun)
	} else {
		begun = int(1.5 * float64(begun) / max(foundShare(earlier.in(use.part)), 0.1))
		use.begins = max(firstBegins, begun, earlier.begins/2)
	}
	use.begins = min(use.begins, len(use.used))
}

// choose returns the part of the range in which most of the expected sessions find a port. The
// present one is that of new sessions until now.
func (use *remoteUse) choose() nat.Block {
	found := foundShare(use.used)
	if found >= wellFound || found >= enoughFound && use.part == use.whole {
		return use.whole
	}
	best, share := use.whole, use.share(use.whole)
	for size := searchMost << 8; size >= searchMost; size /= 2 {
		for first := (int(use.whole.First) + size - 1) / size * size; first+size-1 <= int(use.whole.Last); first += size {
			r := nat.Block{Outside: use.whole.Outside, First: nat.Port(first), Last: nat.Port(first + size - 1)}
			if s := use.share(r); s > share+smallerGain && r != use.whole {
				best, share = r, s
			}
		}
	}
	if use.part != use.whole && use.share(use.part) > max(share-moveGain, use.share(use.whole)) {
		return use.part
	}
	return best
}

// share returns the share of the expected sessions that find a port of a part of the range.
func (use *remoteUse) share(r nat.Block) float64 {
	ports := use.in(r)
	return foundShare(ports) * min(1, float64(freeOf(ports))/float64(use.begins))
}

// in returns the use of a part of the range.
func (use *remoteUse) in(r nat.Block) []bool { return use.used[r.First-use.whole.First:][:r.Size()] }

// next returns the number of sessions, up to most, after which to look again: before half of the
// free ports are gone that new ones get.
func (n *narrowing) next(most int) int {
	next := most
	for i := range n.uses {
		next = min(next, freeOf(n.uses[i].in(n.uses[i].part))/2)
	}
	return max(1, next)
}

// pins are the parts of new sessions that are not the whole range.
func (n *narrowing) pins() (list []nat.Pin) {
	if n == nil {
		return nil
	}
	for i := range n.uses {
		if use := &n.uses[i]; use.part != use.whole {
			list = append(list, nat.Pin{Protocol: use.protocol, Remote: use.remote, Block: use.part})
		}
	}
	return list
}

func freeOf(used []bool) (free int) {
	for _, u := range used {
		if !u {
			free++
		}
	}
	return free
}

// foundShare returns the share of new sessions for which nf_nat finds a port that is not used.
func foundShare(used []bool) float64 {
	missed := 1.0
	for tries := min(searchMost, len(used)); tries >= searchLeast && missed > 0; tries /= 2 {
		missed *= missedShare(used, tries)
		if tries == len(used) {
			break
		}
	}
	return 1 - missed
}

// missedShare returns the share of the ports from which on so many, round the end of the range,
// are used.
func missedShare(used []bool, tries int) float64 {
	missed, run := 0, 0
	for i := range len(used) + tries - 1 {
		if run++; !used[i%len(used)] {
			run = 0
		}
		if i >= tries-1 && run >= tries {
			missed++
		}
	}
	return float64(missed) / float64(len(used))
}

// Narrow takes the ports in use of a binding that has to make do with its blocks, as
// [Growths.Used] said, and chooses the ports of new sessions to the remote endpoints to which most
// of them lead ([Growths.Parts]). It returns how many sessions may begin before the next look.
func (x Growths) Narrow(inside netip.Addr, u *PortUse) (next int) {
	_, b, r, ok := x.Resizable(inside)
	switch {
	case !ok || b != u.blocks:
		return 1
	case !Narrowable(r.Size()):
		return max(1, b.Size()/8)
	}
	g := x.m.growths.of(inside)
	n := newNarrowing(u, r)
	n.choose(g.narrowing)
	g.narrowing = n
	if g.most && b.Len() == 1 && len(n.pins()) == 0 { // it waits for nothing
		return n.next(r.Size() / 2)
	}
	return n.next(b.Size() / 8)
}

// Narrowable reports whether nf_nat misses free ports in a range of so many.
func Narrowable(ports int) bool { return ports > searchMost }

// Parts returns the remote endpoints of a subscriber whose new sessions get ports of a part of the
// range, which may not be programmed yet.
func (x Growths) Parts(inside netip.Addr) []nat.Pin {
	if g := x.m.growths[inside]; g != nil {
		return g.narrowing.pins()
	}
	return nil
}

// Narrowed reports whether there are any.
func (x Growths) Narrowed(inside netip.Addr) bool { return len(x.Parts(inside)) > 0 }

// widen takes them away.
func (x Growths) widen(inside netip.Addr) {
	if g := x.m.growths[inside]; g != nil {
		g.narrowing = nil
	}
}
