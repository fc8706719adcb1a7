package nftnat

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// shadow is what the gate and block maps are known to hold.
type shadow map[address]cell

// entries lists the shadow in order of inside address.
func (s shadow) entries() []Entry {
	list := make([]Entry, 0, len(s))
	for inside, c := range s {
		list = append(list, c.entry(inside))
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.Inside.Compare(b.Inside) })
	return list
}

// A change takes one inside address from one cell to another.
type change struct {
	inside   address
	from, to cell
}

// diff lists what has to change in s so that it says what want says. Cuts come
// first, and each part is in order of inside address.
func (s shadow) diff(want shadow) []change {
	var changes []change
	for inside, to := range want {
		if from := s[inside]; from != to {
			changes = append(changes, change{inside, from, to})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(
			-compareBool(a.to == (cell{}), b.to == (cell{})),
			bytes.Compare(a.inside[:], b.inside[:]),
		)
	})
	return changes
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// apply records that the changes were made.
func (s shadow) apply(changes []change) {
	for _, c := range changes {
		if c.to == (cell{}) {
			delete(s, c.inside)
		} else {
			s[c.inside] = c.to
		}
	}
}

// wanted checks entries and turns them into cells. Of several for one address
// the last counts.
func wanted(entries []Entry) (shadow, error) {
	want := make(shadow, len(entries))
	for _, e := range entries {
		c, err := e.cell()
		if err != nil {
			return nil, err
		}
		want[e.Inside.As4()] = c
	}
	return want, nil
}

func (e Entry) cell() (cell, error) {
	switch {
	case !e.Inside.Is4():
		return cell{}, fmt.Errorf("nftnat: inside address %v is not IPv4", e.Inside)
	case e.Gate == Closed:
		return cell{}, nil
	case e.Gate > Draining:
		return cell{}, fmt.Errorf("nftnat: gate %d of %v is unknown", e.Gate, e.Inside)
	case !e.Outside.Is4():
		return cell{}, fmt.Errorf("nftnat: outside address %v of %v is not IPv4", e.Outside, e.Inside)
	case e.First == 0 || e.Last < e.First:
		return cell{}, fmt.Errorf("nftnat: port block %d-%d of %v is empty", e.First, e.Last, e.Inside)
	}
	return cell{e.Gate, block{e.Outside.As4(), e.First, e.Last}}, nil
}
