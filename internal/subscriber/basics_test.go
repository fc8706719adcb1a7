package subscriber

import "testing"

func TestReasonNames(t *testing.T) {
	for r := ReasonNone; r <= ReasonRemovedInDatabase; r++ {
		if got, err := ParseReason(r.String()); err != nil || got != r {
			t.Errorf("%d: %q parses to %d, %v", r, r, got, err)
		}
	}
	if _, err := ParseReason("NOPE"); err == nil {
		t.Error("unknown name parsed")
	}
}

func TestCompareVersions(t *testing.T) {
	ordered := []string{"", "0-1", "5-0", "5-2", "5-10", "40-0", "18446744073709551615-0"}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("%q against %q: %d, want %d", a, b, got, want)
			}
		}
	}
}

// TestTablesAreComplete checks that every relation that can be ignored has a
// verdict, and that every scope has a row for every relation.
func TestTablesAreComplete(t *testing.T) {
	for scope, rows := range sessionRules {
		for relation, row := range rows {
			for kind, step := range row {
				if step == StepIgnore && ignored[relation] == NotHere {
					t.Errorf("scope %d, standing %d, kind %d is ignored without a verdict", scope, relation, kind)
				}
			}
		}
	}
}
