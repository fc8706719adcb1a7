package radiusacct

import (
	"testing"
	"time"
)

// TestArrivals: arrivals are those of the stamps, however late the datagrams are read, and never
// go back.
func TestArrivals(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	stamp := func(ms int) time.Time { return at(ms).Round(0) } // without a monotonic reading
	var a arrivals
	for _, c := range []struct {
		name        string
		stamp       time.Time
		read, wants int // ms
	}{
		{"at once", stamp(10), 10, 10},
		{"of one read, the first", stamp(20), 25, 20},
		{"of one read, a later one", stamp(22), 25, 22},
		{"stamped by a slower processor", stamp(21), 26, 22},
		{"after a pause", stamp(30), 5030, 30},
		{"without a stamp", time.Time{}, 5040, 5040},
		{"stamped ahead of the read", stamp(5060), 5050, 5050},
	} {
		// The server's clock is an hour off the system's.
		got := a.at(c.stamp, at(c.read).Add(time.Hour), at(c.read))
		if want := at(c.wants).Add(time.Hour); got.Sub(want).Abs() > time.Microsecond {
			t.Errorf("%s: arrived %v off", c.name, got.Sub(want))
		}
	}
}
