package history

import (
	"hash/crc32"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// microTime is a time in microseconds since 1970.
type microTime int64

// never is the end of a span that has not ended.
const never microTime = math.MaxInt64

func microsOf(t time.Time) microTime { return microTime(t.UnixMicro()) }

// time returns the time, zero for never.
func (m microTime) time() time.Time {
	if m == never {
		return time.Time{}
	}
	return time.UnixMicro(int64(m)).UTC()
}

// span is the time in which one holder has one block.
type span struct {
	blockKey
	allocated microTime
	released  microTime // the holder surely has the block until then; never: it still has it
	vacant    microTime // the holder surely does not have it from then on; later than released if the release was lost
	from      holderSource
	ref       uint64 // of the holder, in from
	digests   holderDigests
}

// holderDigests are short hashes by which a journal in memory is searched. Spans of a day's
// file have none.
type holderDigests struct{ user, inside uint32 }

// digestsOf returns the digests of a holder, zero of an erased one.
func digestsOf(h *holderData) (d holderDigests) {
	if h.identity == nil {
		return d
	}
	user, rest, err := cutString(h.identity)
	if err != nil {
		return d
	}
	inside, _, err := cutString(rest)
	if err != nil {
		return d
	}
	return holderDigests{crc32.Checksum(user, castagnoli), crc32.Checksum(inside, castagnoli)}
}

// blockKey is a block, with its address as a number.
type blockKey struct {
	outside     uint32
	first, last nat.Port
}

func keyOf(b nat.Block) blockKey { return blockKey{addrrange.Number(b.Outside), b.First, b.Last} }

func (k blockKey) block() nat.Block {
	return nat.Block{Outside: addrrange.Address(k.outside), First: k.first, Last: k.last}
}

// compare orders blocks by address, then by ports.
func (k blockKey) compare(x blockKey) int {
	switch {
	case k.outside != x.outside:
		return compareNumbers(k.outside, x.outside)
	case k.first != x.first:
		return compareNumbers(k.first, x.first)
	}
	return compareNumbers(k.last, x.last)
}

func compareNumbers[T uint32 | nat.Port | microTime | uint64 | int](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *span) compare(x *span) int {
	if c := s.blockKey.compare(x.blockKey); c != 0 {
		return c
	}
	if c := compareNumbers(s.allocated, x.allocated); c != 0 {
		return c
	}
	// Only while a clock is behind where it was, one block can be allocated twice at a time.
	return compareNumbers(s.released, x.released)
}

// holderSource has the holders of spans.
type holderSource interface {
	holder(ref uint64) (holderData, error)
}

// spanBook has the spans of a journal in memory, by block.
type spanBook struct {
	addrs  map[uint32][]*blockSpans // of an address: by ports
	resets []gapSpan                // in which the releases of what was held before were lost
}

// blockSpans are the spans of one block, in the order of the log.
type blockSpans struct {
	first, last nat.Port
	spans       []span
}

// gapSpan is a time of which changes may be missing.
type gapSpan struct{ from, to microTime }

func newBook() *spanBook { return &spanBook{addrs: map[uint32][]*blockSpans{}} }

// block returns the spans of a block, nil if it has none and make is false.
func (b *spanBook) block(k blockKey, create bool) *blockSpans {
	list := b.addrs[k.outside]
	i, found := slices.BinarySearchFunc(list, k, func(x *blockSpans, k blockKey) int {
		return blockKey{k.outside, x.first, x.last}.compare(k)
	})
	switch {
	case found:
		return list[i]
	case !create:
		return nil
	}
	x := &blockSpans{first: k.first, last: k.last}
	b.addrs[k.outside] = slices.Insert(list, i, x)
	return x
}

// lastOf returns the newest span of a block, nil for none.
func (b *spanBook) lastOf(k blockKey) *span {
	x := b.block(k, false)
	if x == nil || len(x.spans) == 0 {
		return nil
	}
	return &x.spans[len(x.spans)-1]
}

// begin adds a span that a holder begins, and ends one that is still open: its release is
// missing, so nothing is sure of the time between.
func (b *spanBook) begin(s span) {
	x := b.block(s.blockKey, true)
	if n := len(x.spans); n > 0 {
		last := &x.spans[n-1]
		if last.released == never {
			if last.allocated == s.allocated {
				last.from, last.ref, last.digests = s.from, s.ref, s.digests // told again
				return
			}
			last.released, last.vacant = last.allocated, max(last.allocated, s.allocated)
		}
	}
	x.spans = append(x.spans, s)
}

// end ends the open span of a block, if there is one.
func (b *spanBook) end(k blockKey, at microTime) {
	if last := b.lastOf(k); last != nil && last.released == never {
		last.released, last.vacant = at, at
	}
}

// reset ends all open spans within a gap.
func (b *spanBook) reset(g gapSpan) {
	b.resets = append(b.resets, g)
	for _, list := range b.addrs {
		for _, x := range list {
			if n := len(x.spans); n > 0 && x.spans[n-1].released == never {
				last := &x.spans[n-1]
				last.released, last.vacant = max(last.allocated, g.from), max(last.allocated, g.to)
			}
		}
	}
}

// confirm begins a span that is in force since, or goes on with the one that a reset ended.
func (b *spanBook) confirm(s span) {
	x := b.block(s.blockKey, true)
	if n := len(x.spans); n > 0 {
		last := &x.spans[n-1]
		if last.allocated == s.allocated {
			*last = s
			return
		}
	}
	b.begin(s)
}

// each calls use with each span.
func (b *spanBook) each(use func(*span)) {
	for _, list := range b.addrs {
		for _, x := range list {
			for i := range x.spans {
				use(&x.spans[i])
			}
		}
	}
}

// within appends the spans of blocks that have a port from first to last.
func (b *spanBook) within(to []span, outside uint32, first, last nat.Port) []span {
	for _, x := range b.addrs[outside] {
		if x.first <= last && first <= x.last {
			to = append(to, x.spans...)
		}
	}
	return to
}

// combine returns the spans of one address in a journal, with those of before that it goes on
// with: open ones, and those that end in the time of the journal. All are sorted by block.
func combine(before, now []span, resets []gapSpan, from microTime) []span {
	all := slices.Clone(now)
	for _, old := range before {
		if old.vacant <= from {
			continue
		}
		i, _ := slices.BinarySearchFunc(now, old.blockKey, func(s span, k blockKey) int { return s.blockKey.compare(k) })
		end := i
		for end < len(now) && now[end].blockKey == old.blockKey {
			end++
		}
		own := now[i:end] // in the order of the log
		if old.released == never {
			if slices.ContainsFunc(own, func(s span) bool { return s.allocated == old.allocated }) {
				continue // the journal has it, with its end
			}
			old.loseRelease(own, resets)
		}
		all = append(all, old)
	}
	slices.SortFunc(all, func(a, b span) int { return a.compare(&b) })
	return all
}

// loseRelease ends an open span where the journal shows that its release was lost. own are the
// journal's spans of the block.
func (s *span) loseRelease(own []span, resets []gapSpan) {
	begun := s.allocated
	if len(own) > 0 {
		s.released, s.vacant = begun, max(begun, own[0].allocated)
	}
	if len(resets) > 0 {
		// Without a reset every release is told. So it was lost in the first one, and the holder is
		// certain until then, or until the next by its clock.
		s.released = max(begun, min(resets[0].from, s.vacant))
		s.vacant = max(s.released, min(s.vacant, resets[0].to))
	}
}

// outsideNumber returns an address as a number; ok is false of one that is not IPv4.
func outsideNumber(a netip.Addr) (n uint32, ok bool) {
	if !a.Is4() {
		return 0, false
	}
	return addrrange.Number(a), true
}
