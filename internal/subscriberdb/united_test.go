package subscriberdb

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestUnitedNASesFillNoLog_I10: a client that reports the sessions of many NASes of another
// client causes one log line, not one for each.
func TestUnitedNASesFillNoLog_I10(t *testing.T) {
	t.Parallel()
	var log lines
	db := newDB(t, redistest.Start(t), func(o *Options) { o.Logger = log.logger() })
	for i := range 20 {
		inside := netip.AddrFrom4([4]byte{100, 64, 3, byte(i)})
		e := start(fmt.Sprint("s", i), inside, 0)
		e.NAS = fmt.Sprint("nas", i)
		record(t, db, e)
		e.Client, e.Kind, e.At, e.Stamp = "bng2", subscriber.EventInterim, e.At.Add(60e9), e.Stamp.Add(60e9)
		record(t, db, e)
	}
	if said := log.with("one NAS is heard of through two clients"); len(said) != 1 {
		t.Errorf("%d lines", len(said))
	}
}
