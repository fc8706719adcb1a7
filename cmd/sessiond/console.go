package main

import (
	"net/http"
	"time"

	"github.com/sessiond/sessiond/internal/console"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/session"
)

// openConsole makes the console, where there is to be one, and returns its pages.
func (d *daemon) openConsole() (http.Handler, error) {
	if !d.config.HTTP.Console {
		return nil, nil
	}
	served := d.manager.Backend()
	var err error
	d.console, err = console.New(console.Options{
		Subscribers: served, Nat: served, Sessions: served, Removals: served,
		Controls: controls{Backend: served, nat: d.nat, log: d.log, started: time.Now()},
		Machine:  machine{d.manager, d.nat, d.metrics}, Hosts: d.config.HTTP.Hosts, Logger: d.log,
		Tokens: d.control, Calls: d.control.Within(), Anonymous: role(d.config.HTTP.AnonymousRole),
	})
	if err != nil {
		return nil, err
	}
	return d.console.Handler(), nil
}

// machine tells the console about the kernel side, and counts.
type machine struct {
	manager *session.Manager
	nat     backend
	metrics *metrics.Metrics
}

// Kernel implements console.Machine.
func (m machine) Kernel() console.Kernel {
	fill := m.nat.Fill()
	return console.Kernel{Entries: fill.Entries, Limit: fill.Limit, Barrier: m.nat.Barrier()}
}

// Totals implements console.Machine.
func (m machine) Totals() console.Totals { return console.Totals(m.metrics.Totals()) }

// Layout implements console.Machine.
func (m machine) Layout(group string) (console.Layout, bool) {
	for _, g := range m.manager.Groups() {
		if g.Name == group {
			return console.Layout{First: g.FirstPort, Last: g.LastPort, BlockSize: g.BlockSize}, true
		}
	}
	return console.Layout{}, false
}
