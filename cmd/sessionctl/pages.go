package main

import "context"

// eachPage calls show for every page of a list, up to the page without a token
// for a next one. A page may be short or empty although others follow. The next
// page is fetched while one is shown; fetch's ctx ends when its result is no
// longer needed.
func eachPage[P any](ctx context.Context, fetch func(ctx context.Context, token string) (page P, next string, err error), show func(P) error) error {
	type fetched struct {
		page P
		next string
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	begin := func(token string) <-chan fetched {
		done := make(chan fetched, 1)
		go func() {
			var f fetched
			f.page, f.next, f.err = fetch(ctx, token)
			done <- f
		}()
		return done
	}
	pending := begin("")
	defer func() { // no fetch outlives the list
		cancel()
		if pending != nil {
			<-pending
		}
	}()
	for pending != nil {
		f := <-pending
		pending = nil
		if f.err != nil {
			return f.err
		}
		if f.next != "" {
			pending = begin(f.next)
		}
		if err := show(f.page); err != nil {
			return err
		}
	}
	return nil
}
