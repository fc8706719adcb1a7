package inspect

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// RemovalKind is the state of a removal that was not carried out.
type RemovalKind uint8

// The kinds of removals that are not, or not yet, carried out.
const (
	RemovalHeld     RemovalKind = iota + 1 // a guard holds it until it is confirmed or refused
	RemovalGrace                           // its grace time is not over
	RemovalObserved                        // the mode was RemovalObserve
)

// Removal is one subscriber whose NAT sessions were not removed, or not yet.
type Removal struct {
	Kind     RemovalKind
	Record   subscriber.Record
	Reason   subscriber.Reason
	Since    time.Time // end of the record, or first suspension of the removal
	DueAt    time.Time // end of the grace time; zero for other kinds
	Sessions int       // its present conntrack entries, or for RemovalObserved those at that time
}

// RemovalKey orders removals. The zero key comes before every other.
type RemovalKey struct {
	subscriber.Key
	Kind  RemovalKind
	Since time.Time // distinguishes the observed removals of one address
}

// Key returns the key of the removal.
func (r *Removal) Key() RemovalKey { return RemovalKey{r.Record.Key, r.Kind, r.Since} }

// Compare orders by group, inside address, kind, time.
func (k RemovalKey) Compare(o RemovalKey) int {
	return cmp.Or(CompareKeys(k.Key, o.Key), cmp.Compare(k.Kind, o.Kind), k.Since.Compare(o.Since))
}

// RemovalFilter selects removals; zero fields match all.
type RemovalFilter struct {
	Group  string
	NAS    string // raw octets, exact
	Inside netip.Prefix
	Reason subscriber.Reason
	Kind   RemovalKind
}

// Match reports whether the removal passes the filter.
func (f *RemovalFilter) Match(r *Removal) bool {
	return matches(f.Group, r.Record.Group) &&
		matches(f.NAS, r.Record.NAS) &&
		matches(f.Reason, r.Reason) &&
		matches(f.Kind, r.Kind) &&
		within(f.Inside, r.Record.Inside)
}

// RemovalsEtag names the suspended removals of these addresses, which are in order: other addresses
// have another etag.
func RemovalsEtag(keys []subscriber.Key) string {
	sum := sha256.New()
	var text []byte
	for _, k := range keys {
		text = append(append(text[:0], k.Group...), 0)
		text = append(k.Inside.AppendTo(text), 0)
		_, _ = sum.Write(text) // cannot fail
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
