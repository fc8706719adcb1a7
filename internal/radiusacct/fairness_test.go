package radiusacct

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestCompanyIsRemembered(t *testing.T) {
	var c fairness
	now := time.Unix(1_700_000_000, 0)
	storm, one, two := &realm{}, &realm{}, &realm{}
	if c.hasOther(storm, now) {
		t.Error("somebody is calm before anybody came")
	}
	c.note(storm, now)
	if c.hasOther(storm, now) {
		t.Error("a client has itself beside it")
	}
	storm.storm(now)
	another := &realm{}
	another.storm(now.Add(-quietTime / 2))
	c.note(another, now)
	if c.hasOther(storm, now) {
		t.Error("two storms hold each other back")
	}
	c.note(one, now)
	c.note(storm, now)
	if !c.hasOther(storm, now) || !c.hasOther(two, now) {
		t.Error("a calm client was forgotten at once")
	}
	if c.hasOther(storm, now.Add(quietTime)) {
		t.Error("a calm client that fell silent is still remembered")
	}
}

// TestStormsMakeWay_ACCT26 has storms that would otherwise work without a pause.
func TestStormsMakeWay_ACCT26(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fairness
		began := time.Now()
		work := func() { time.Sleep(2 * time.Millisecond) } // the synctest bubble's time
		for range 10 {
			c.yieldToQuiet(context.Background(), work)
		}
		if took := time.Since(began); took != 40*time.Millisecond {
			t.Errorf("20 ms of work took %v, want as much again for others", took)
		}
		c.yieldToQuiet(context.Background(), func() { time.Sleep(time.Hour) })
		if took := time.Since(began) - 40*time.Millisecond; took != time.Hour+longestPause {
			t.Errorf("an hour of work took %v", took)
		}
	})
}
