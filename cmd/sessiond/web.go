package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// web serves /metrics, /healthz and /readyz.
type web struct {
	listener net.Listener
	server   *http.Server
}

func newWeb(l net.Listener, metrics http.Handler, notReady func() error) *web {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := notReady(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return &web{listener: l, server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}
}

// run serves until ctx ends.
func (w *web) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.server.Close() })
	defer stop()
	if err := w.server.Serve(w.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
