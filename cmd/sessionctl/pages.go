package main

import "context"

// eachPage gives every page of a list to show, from the first to the one that has no
// token for another. A page may have few items or none, and others may still follow.
// The next one is fetched while one is shown; ctx of fetch ends when it is of no use.
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
	defer func() { // nothing goes on behind the list
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
