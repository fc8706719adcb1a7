// Package arena stores many values of one type by number.
package arena

import "iter"

// An Arena grows by a page at a time, so that growing copies and moves no value, and leaves at
// most a page unused. Values without pointers cost the garbage collector nothing. The zero
// value is not ready for use: New.
//
// Numbers begin at 1: 0 means none. The users of an Arena chain the values that they no longer
// need, and use their numbers again.
type Arena[T any] struct {
	pages [][]T
	bits  uint8 // low bits of a number: the place in its page
	len   uint32
}

// New returns an empty arena with pages of 1<<pageBits values.
func New[T any](pageBits uint8) Arena[T] { return Arena[T]{bits: pageBits} }

// At returns the value with a number that Add returned.
func (a *Arena[T]) At(i uint32) *T { return &a.pages[i>>a.bits][i&(1<<a.bits-1)] }

// Add adds a value, the zero T, and returns its number.
func (a *Arena[T]) Add() uint32 {
	a.len++
	for int(a.len>>a.bits) >= len(a.pages) {
		a.pages = append(a.pages, make([]T, 1<<a.bits))
	}
	return a.len
}

// Len returns the number of values, which is also the number of the last one.
func (a *Arena[T]) Len() int { return int(a.len) }

// All yields numbers and values in order of number.
func (a *Arena[T]) All() iter.Seq2[uint32, *T] {
	return func(yield func(uint32, *T) bool) {
		for i := uint32(1); i <= a.len; i++ {
			if !yield(i, a.At(i)) {
				return
			}
		}
	}
}
