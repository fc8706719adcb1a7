package natlog

import (
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Begin implements Destination: a collector that is new gets an Allocated event of each block in
// service, one that has missed events an Interim.
func (s *Sink) Begin(group, position string, live Live) error {
	known, err := s.Position(group)
	if err != nil {
		return err
	}
	kind := nat.Interim
	if known == "" {
		kind = nat.Allocated
	}
	if err := s.tellLive(group, live, kind, s.now()); err != nil {
		return err
	}
	return s.Append(group, position, nil)
}

// AtEnd implements Destination: it tells the blocks in service again where that is due. While the
// collector is away it is not: they would take the room of events that nobody tells again.
func (s *Sink) AtEnd(group string, at time.Time, live Live) error {
	text, err := s.Position(interimKey(group))
	if err != nil {
		return err
	}
	last, _ := time.Parse(time.RFC3339, text)                                 // the zero time if it was not stored
	if d := at.Sub(last); d < s.interim && d >= -time.Minute || s.failing() { // d < 0: the clock was ahead
		return nil
	}
	return s.tellLive(group, live, nat.Interim, at)
}

// interimKey is the key of the time of a group's last interims among the positions. No group has
// a name with a space.
func interimKey(group string) string { return "interim " + group }

// tellLive appends an event of a kind, Interim or Allocated, of each block in service.
func (s *Sink) tellLive(group string, live Live, kind nat.EventKind, now time.Time) error {
	err := live(func(blocks []nat.Event) error {
		for i := range blocks {
			if kind == nat.Interim {
				blocks[i].AsInterim(now)
			}
		}
		return s.append(group, blocks)
	})
	if err != nil {
		return err
	}
	return s.Append(interimKey(group), now.Format(time.RFC3339), nil)
}
