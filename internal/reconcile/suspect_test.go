package reconcile

import (
	"testing"

	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// TestSuspicion_I6: a database is suspect if it lost the epoch marker that the
// group trusted when it was read. A look from before another comparison
// completed the database proves nothing.
func TestSuspicion_I6(t *testing.T) {
	t.Parallel()
	marked := func(epoch string) databaseState {
		return databaseState{epoch: "b", marked: true, marker: subscriberdb.Marker{Epoch: epoch}}
	}
	rewound := marked("b")
	rewound.rewound = true
	for name, tt := range map[string]struct {
		group Group
		found databaseState
		want  bool
	}{
		"the same epoch":                 {Group{adopted: true, epoch: "b"}, marked("b"), false},
		"another epoch":                  {Group{adopted: true, epoch: "b"}, marked("c"), true},
		"no marker":                      {Group{adopted: true, epoch: "b"}, databaseState{epoch: "b"}, true},
		"no marker, out of date":         {Group{adopted: true, epoch: "b"}, databaseState{epoch: "a"}, false},
		"gone back":                      {Group{adopted: true, epoch: "b"}, rewound, true},
		"suspect already":                {Group{adopted: true, epoch: "b", suspect: true}, marked("b"), true},
		"a new database":                 {Group{}, databaseState{}, false},
		"remains in an unmarked one":     {Group{}, databaseState{remains: true}, true},
		"never marked, never trusted":    {Group{adopted: true}, databaseState{}, false},
		"marked, and not adopted yet":    {Group{}, marked("c"), false},
		"feed ends before the known end": {Group{adopted: true, epoch: "b"}, func() databaseState { s := marked("b"); s.since, s.tail = "5-0", "4-0"; return s }(), true},
		"feed ends there":                {Group{adopted: true, epoch: "b"}, func() databaseState { s := marked("b"); s.since, s.tail = "5-0", "5-0"; return s }(), false},
	} {
		if got := (&Reconciler{}).suspectLocked(&tt.group, &tt.found); got != tt.want {
			t.Errorf("%s: suspect %t, want %t", name, got, tt.want)
		}
	}
}
