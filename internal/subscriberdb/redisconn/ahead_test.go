package redisconn

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// TestReadAhead: one batch is read while the reader works on another, the order is kept,
// and the error of whichever side ends the walk is returned.
func TestReadAhead(t *testing.T) {
	enough, broken := errors.New("enough"), errors.New("broken")
	count := func(n int, end error) func(context.Context, func(int) error) error {
		return func(_ context.Context, emit func(int) error) error {
			for i := range n {
				if err := emit(i); err != nil {
					return err
				}
			}
			return end
		}
	}
	for _, c := range []struct {
		name    string
		produce func(context.Context, func(int) error) error
		until   int // the batch at which the reader stops
		want    []int
		err     error
	}{
		{"all", count(4, nil), -1, []int{0, 1, 2, 3}, nil},
		{"none", count(0, nil), -1, nil, nil},
		{"broken", count(2, broken), -1, []int{0, 1}, broken},
		{"enough", count(9, broken), 1, []int{0, 1}, enough},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which finds goroutines that are left
				var got []int
				err := ReadAhead(t.Context(), c.produce, func(i int) error {
					if got = append(got, i); i == c.until {
						return enough
					}
					return nil
				})
				if !errors.Is(err, c.err) || !slices.Equal(got, c.want) {
					t.Errorf("got %v, %v, want %v, %v", got, err, c.want, c.err)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := ReadAhead(ctx, count(9, nil), func(int) error { cancel(); return nil })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		read := 0
		_ = ReadAhead(t.Context(), func(_ context.Context, emit func(int) error) error {
			for ; read < 5; read++ {
				if err := emit(read); err != nil {
					return err
				}
			}
			return nil
		}, func(i int) error {
			synctest.Wait()
			if read != min(i+1, 5) {
				t.Errorf("batch %d: %d are read", i, read)
			}
			return nil
		})
	})
}
