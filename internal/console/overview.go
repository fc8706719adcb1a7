package console

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/measure"
)

// shownFact is one line of the overview.
type shownFact struct {
	ID    string `json:"id"` // of its element, which the script keeps current
	Label string `json:"-"`
	Text  string `json:"text"`
	Level string `json:"level"` // "good", "warn", "bad", or "" for a fact that is neither
}

// Levels of facts. The text says the same, for those who see no colours.
const (
	levelGood = "good"
	levelWarn = "warn"
	levelBad  = "bad"
)

// factCard is a group of facts under a heading.
type factCard struct {
	Heading string
	Facts   []shownFact
	Curve   *ratesCurve // optional
}

// ratesCurve is a drawing of starts and stops in the last hour.
type ratesCurve struct {
	Starts string `json:"starts"` // points of a line, in a box of curveWidth by curveHeight
	Stops  string `json:"stops"`
	Text   string `json:"text"` // for those who do not see it
}

const (
	curveWidth  = 300
	curveHeight = 60
)

// overviewPage shows the whole daemon.
func (c *Console) overviewPage(r *http.Request) (shownPage, error) {
	cards, err := c.cards(r.Context())
	return shownPage{template: "overview.html", Title: "Overview", Section: "overview", Body: cards}, err
}

// cards returns the facts about the whole daemon. They are counted, not walked: their cost does not
// grow with the number of subscribers.
func (c *Console) cards(ctx context.Context) ([]factCard, error) {
	s, err := c.Controls.Status(ctx)
	if err != nil {
		return nil, err
	}
	pools, err := c.Nat.Pools(ctx)
	if err != nil && !errors.Is(err, inspect.ErrNotReady) { // the overview says why it is not
		return nil, err
	}
	now, minutes := c.history.rates()
	return []factCard{
		{Heading: "Subscribers", Facts: subscriberFacts(s.Groups, s.Sessions)},
		{Heading: "Port blocks", Facts: blockFacts(pools)},
		{Heading: "Accounting", Facts: []shownFact{
			{ID: "starts", Label: "Starts per second", Text: measure.Rate(now.starts)},
			{ID: "stops", Label: "Stops per second", Text: measure.Rate(now.stops)},
		}, Curve: curveOf(minutes)},
		{Heading: "Removal", Facts: c.removalFacts(&s)},
		{Heading: "Health", Facts: c.healthFacts(&s)},
	}, nil
}

func subscriberFacts(groups []inspect.GroupStatus, sessions int) []shownFact {
	online, pending := 0, 0
	for i := range groups {
		online += groups[i].Subscribers
		pending += groups[i].Pending
	}
	return []shownFact{
		{ID: "online", Label: "Online", Text: measure.Count(online)},
		{ID: "pending", Label: "Waiting for a block", Text: measure.Count(pending), Level: either(pending > 0, levelBad, "")},
		{ID: "sessions", Label: "Live sessions", Text: measure.Count(sessions)},
	}
}

func blockFacts(pools []inspect.Pool) []shownFact {
	total, used, inHold, free := 0, 0, 0, 0
	for i := range pools {
		p := &pools[i]
		total, used, inHold, free = total+p.Total, used+p.Used, inHold+p.Held, free+p.Free
	}
	of := func(n int) string {
		if total == 0 {
			return measure.Count(n)
		}
		return fmt.Sprintf("%s (%.1f %%)", measure.Count(n), 100*float64(n)/float64(total))
	}
	level := ""
	switch {
	case total > 0 && free == 0:
		level = levelBad
	case free*10 < total:
		level = levelWarn
	}
	return []shownFact{
		{ID: "blocks-used", Label: "Used", Text: of(used)},
		{ID: "blocks-held", Label: "Held, in quarantine", Text: of(inHold)},
		{ID: "blocks-free", Label: "Free", Text: of(free), Level: level},
	}
}

// slowCut is the time to cut from which a removal is slow.
const slowCut = time.Second

func (c *Console) removalFacts(s *inspect.Status) []shownFact {
	waiting := 0
	for i := range s.Groups {
		for _, n := range s.Groups[i].RemovalsHeld {
			waiting += n
		}
	}
	t := c.history.cuts()
	cut := func(d time.Duration) string {
		switch {
		case t.removals == 0:
			return "none yet"
		case d >= t.most:
			return measure.Brief(d) + " or more"
		}
		return measure.Brief(d)
	}
	return []shownFact{
		{ID: "toggle", Label: "Sessions are removed when a subscriber ends", Text: s.Settings.Removal.String(), Level: either(s.Settings.Removal == inspect.RemovalOn, levelGood, levelWarn)},
		{ID: "removals-held", Label: "Suspended by a guard, waiting for a person", Text: measure.Count(waiting), Level: either(waiting > 0, levelBad, "")},
		{ID: "cuts", Label: "Subscribers cut in the last hour", Text: cutsText(t)},
		{ID: "cut-p50", Label: "Stop to cut, median", Text: cut(t.p50)},
		{ID: "cut-p90", Label: "Stop to cut, 90 of 100", Text: cut(t.p90)},
		{ID: "cut-p99", Label: "Stop to cut, 99 of 100", Text: cut(t.p99), Level: either(t.p99 > slowCut, levelWarn, "")},
	}
}

func cutsText(t cutTimes) string {
	text := measure.Count(t.removals)
	if t.over < keptFor-sampleEvery {
		text += " in " + measure.Span(t.over)
	}
	return text
}

func (c *Console) healthFacts(s *inspect.Status) []shownFact {
	k := c.Machine.Kernel()
	fill, level := measure.Count(k.Entries), ""
	if k.Limit > 0 {
		share := float64(k.Entries) / float64(k.Limit)
		fill = fmt.Sprintf("%s of %s (%.0f %%)", fill, measure.Count(k.Limit), 100*share)
		level = either(share > 0.8, levelBad, levelGood)
	}
	lag := time.Duration(0)
	for i := range s.Groups {
		lag = max(lag, s.Groups[i].FeedLag)
	}
	return []shownFact{
		{ID: "ready", Label: "sessiond " + s.Version + " at " + s.Node, Text: orElse(s.NotReady, "ready", "not ready: "), Level: either(s.NotReady == "", levelGood, levelBad)},
		{ID: "redis", Label: "Redis", Text: either(s.DatabaseUp, "records accounting", "does not record accounting"), Level: either(s.DatabaseUp, levelGood, levelBad)},
		{ID: "database", Label: "Database", Text: orElse(s.DatabaseSuspect, "whole", "suspect: "), Level: either(s.DatabaseSuspect == "", levelGood, levelBad)},
		{ID: "feed-lag", Label: "Changes not applied yet", Text: either(lag == 0, "none", "the oldest is "+measure.Brief(lag)+" old"), Level: either(lag > 5*time.Second, levelBad, "")},
		{ID: "conntrack", Label: "Conntrack table of the kernel", Text: fill, Level: level},
		{ID: "barrier", Label: "Barrier behind nftables", Text: either(k.Barrier, "in place", "not in place: packets may leave untranslated while nftables is reloaded"), Level: either(k.Barrier, levelGood, levelBad)},
		{ID: "compared", Label: "Redis, engine and kernel compared", Text: c.comparedText(s), Level: either(s.Drifts > 0, levelWarn, "")},
		{ID: "foreign", Label: "Flows that other tables translated", Text: measure.Count(s.Foreign.Flows), Level: either(s.Foreign.Flows > 0, levelBad, "")},
		{ID: "flowtables", Label: "Flowtables of other tables", Text: flowtablesText(&s.Flowtables), Level: either(s.Flowtables.Refused, levelBad, "")},
	}
}

func (c *Console) comparedText(s *inspect.Status) string {
	if s.ReconciledAt.IsZero() {
		return "not yet"
	}
	return fmt.Sprintf("%s ago, differences: %s", measure.Span(c.Now().Sub(s.ReconciledAt)), measure.Count(s.Drifts))
}

func flowtablesText(f *inspect.Flowtables) string {
	switch {
	case len(f.Others) == 0:
		return "none"
	case f.Refused:
		return strings.Join(f.Others, ", ") + ": packets pass the gates there"
	}
	return strings.Join(f.Others, ", ")
}

// curveOf draws the rates of each minute; nil where there are too few.
func curveOf(minutes []eventRates) *ratesCurve {
	if len(minutes) < 2 {
		return nil
	}
	top := 1.0
	for _, m := range minutes {
		top = max(top, m.starts, m.stops)
	}
	points := func(rate func(eventRates) float64) string {
		var b strings.Builder
		for i, m := range minutes {
			x := float64(i) * curveWidth / float64(len(minutes)-1)
			y := curveHeight - 2 - rate(m)*(curveHeight-4)/top
			b.WriteString(strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64))
			b.WriteByte(',')
			b.WriteString(strconv.FormatFloat(math.Round(y*10)/10, 'f', -1, 64))
			b.WriteByte(' ')
		}
		return strings.TrimSpace(b.String())
	}
	return &ratesCurve{
		Starts: points(func(m eventRates) float64 { return m.starts }),
		Stops:  points(func(m eventRates) float64 { return m.stops }),
		Text:   fmt.Sprintf("Starts and stops per second in the last %d minutes, at most %s", len(minutes), measure.Rate(top)),
	}
}

func either(condition bool, then, otherwise string) string {
	if condition {
		return then
	}
	return otherwise
}

// orElse returns the text for no problem, or the problem behind a prefix.
func orElse(problem, none, prefix string) string {
	if problem == "" {
		return none
	}
	return prefix + problem
}
