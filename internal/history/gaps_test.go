package history

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestGapsOfDays: a day's checkpoint has the gaps of its time alone, as each proof has it. The time of a
// file that is missing is a gap too.
func TestGapsOfDays(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	q := newQuiet(t, noon)
	q.read(noon.Add(time.Hour))
	q.must(q.Resume(Restart{Group: "default", Epoch: "e", Position: "9-1", From: noon.Add(time.Hour), To: noon.Add(2 * time.Hour), Reason: "a test"}))
	for day := range 3 {
		q.read(noon.AddDate(0, 0, day+1))
		q.must(q.Maintain(noon))
	}
	list, err := q.Verify(t.Context(), "")
	q.must(err)
	for i, note := range list[0].Checkpoints {
		if has := strings.Contains(note, "\ngap "); has != (i == 0) {
			t.Errorf("checkpoint %d: %s", i, note)
		}
	}
	if len(list[0].Checkpoints) != 3 {
		t.Fatalf("%+v", list)
	}
	second := q.log("default").segments[1].file()
	q.must(q.Close())
	q.must(os.Remove(second))
	if q.Store, err = Open(q.o); err != nil {
		t.Fatal(err)
	}
	p, _ := q.Progress("default")
	if len(p.Gaps) != 2 || !strings.Contains(p.Gaps[1].Reason, "missing") || p.Gaps[1].From.Day() != 2 || p.Gaps[1].To.Day() != 3 {
		t.Errorf("%+v", p.Gaps)
	}
}
