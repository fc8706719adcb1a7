package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/netlab"
)

// flows are the ends of long-lived TCP flows at this host, numbered from 1 in
// the order in which they began.
type flows struct {
	mu   sync.Mutex
	ends []*netlab.End
}

func (f *flows) add(end *netlab.End) labapi.Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends = append(f.ends, end)
	return stateOf(len(f.ends), end)
}

func stateOf(id int, end *netlab.End) labapi.Flow {
	return labapi.Flow{ID: id, Local: end.Local(), Remote: end.Remote(), Received: end.Received()}
}

// handle adds the orders common to both kinds of hosts.
func (f *flows) handle(mux *http.ServeMux) {
	mux.Handle("GET /flows", order(f.list))
	mux.Handle("POST /flows/{id}/send", order(f.send))
	mux.Handle("DELETE /flows/{id}", order(f.end))
}

func (f *flows) list(context.Context, *http.Request, none) ([]labapi.Flow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := make([]labapi.Flow, 0, len(f.ends))
	for i, end := range f.ends {
		states = append(states, stateOf(i+1, end))
	}
	return states, nil
}

func (f *flows) send(_ context.Context, r *http.Request, _ none) (labapi.Sent, error) {
	end, err := f.find(r)
	if err != nil {
		return labapi.Sent{}, err
	}
	n, err := end.Send()
	return labapi.Sent{Number: n}, err
}

func (f *flows) end(_ context.Context, r *http.Request, _ none) (none, error) {
	end, err := f.find(r)
	if err != nil {
		return none{}, err
	}
	return none{}, end.Close()
}

func (f *flows) find(r *http.Request) (*netlab.End, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 1 || id > len(f.ends) {
		return nil, errors.New("no such flow")
	}
	return f.ends[id-1], nil
}

// Close ends all flows.
func (f *flows) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, end := range f.ends {
		errs = append(errs, end.Close())
	}
	return errors.Join(errs...)
}
