package session

import "slices"

// topN keeps the smallest limit items of all that are added, in order; of equal
// items the last.
type topN[T any] struct {
	limit   int
	compare func(a, b T) int
	kept    []T
}

func (s *topN[T]) add(x T) {
	if n := len(s.kept); n == s.limit && (n == 0 || s.compare(x, s.kept[n-1]) > 0) {
		return
	}
	i, there := slices.BinarySearchFunc(s.kept, x, s.compare)
	if there {
		s.kept[i] = x
		return
	}
	s.kept = slices.Insert(s.kept, i, x)
	s.kept = s.kept[:min(len(s.kept), s.limit)]
}
