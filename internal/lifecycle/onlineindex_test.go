package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestOnlineIndexForgets: removed records leave nothing behind, not even names.
func TestOnlineIndexForgets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x := newOnlineIndex()
	var records []subscriber.Packed
	for i := range 1000 {
		r := subscriber.Record{
			Key:       subscriber.Key{Group: fmt.Sprint("g", random.IntN(3)), Inside: nth(i)},
			SessionID: subscriber.SessionID{Client: "bng1", NAS: fmt.Sprint("nas", random.IntN(5))},
			UserName:  fmt.Sprint("u", random.IntN(100)),
		}
		records = append(records, r.Pack())
		x.add(&records[i])
	}
	if x.users.Len() == 0 || x.nases.Len() == 0 || len(x.groups) != 3 || len(x.counts) != 5 {
		t.Fatalf("%d users, %d NASes, %d groups, %d counts", x.users.Len(), x.nases.Len(), len(x.groups), len(x.counts))
	}
	for _, i := range random.Perm(len(records)) {
		x.remove(&records[i])
	}
	if n := len(x.groups) + len(x.counts) + x.users.Len() + x.nases.Len(); n > 0 {
		t.Errorf("of nobody, %d groups, %d NASes, %d names and %d places are left", len(x.groups), len(x.counts), x.users.Len(), x.nases.Len())
	}
}
