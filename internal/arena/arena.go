// Package arena keeps many values of one type by number.
package arena

import "iter"

// An Arena grows by a page at a time, so that growing copies no value, moves none and
// leaves no more than a page unused. A value that holds no pointers costs the garbage
// collector nothing. Its zero value is not ready for use: New.
//
// Numbers begin at 1: 0 stands for none. Values that are no longer needed are chained by
// their users, who give the numbers out again.
type Arena[T any] struct {
	pages [][]T
	bits  uint8 // of a number that tell the place in its page
	len   uint32
}

// New returns an empty arena with pages of 1<<pageBits values.
func New[T any](pageBits uint8) Arena[T] { return Arena[T]{bits: pageBits} }

// At returns the value of a number that Add returned.
func (a *Arena[T]) At(i uint32) *T { return &a.pages[i>>a.bits][i&(1<<a.bits-1)] }

// Add makes one more value, the zero T, and returns its number.
func (a *Arena[T]) Add() uint32 {
	a.len++
	for int(a.len>>a.bits) >= len(a.pages) {
		a.pages = append(a.pages, make([]T, 1<<a.bits))
	}
	return a.len
}

// Len returns how many values were added, which is the number of the last one.
func (a *Arena[T]) Len() int { return int(a.len) }

// All yields the values by their numbers.
func (a *Arena[T]) All() iter.Seq2[uint32, *T] {
	return func(yield func(uint32, *T) bool) {
		for i := uint32(1); i <= a.len; i++ {
			if !yield(i, a.At(i)) {
				return
			}
		}
	}
}
