package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// longest bounds an order without a time limit of its own.
const longest = 30 * time.Second

// serve serves orders until ctx is done.
func serve(ctx context.Context, address string, mux *http.ServeMux) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", address)
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: longest}
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	tasks.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve control: %w", err)
		}
		return nil
	})
	return tasks.Wait()
}

// order makes an HTTP handler from a function. The handler decodes the request
// from JSON, if there is one, and encodes the result. An error becomes status
// 422 with its text: the order was understood but could not be carried out.
func order[Req, Resp any](do func(context.Context, *http.Request, Req) (Resp, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if r.ContentLength != 0 {
			if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		resp, err := do(r.Context(), r, req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(resp)
	}
}

// limit bounds an order by a time in milliseconds, 0 for the longest.
func limit(ctx context.Context, milliseconds int) (context.Context, context.CancelFunc) {
	within := longest
	if milliseconds > 0 {
		within = time.Duration(milliseconds) * time.Millisecond
	}
	return context.WithTimeout(ctx, within)
}

// none stands for a request or response without content.
type none struct{}
