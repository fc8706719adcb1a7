package main

import (
	"context"

	"github.com/sessiond/sessiond/internal/audit/sink"
	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// auditTasks returns the tasks that trim the audit trails and copy them to the sinks.
func (d *daemon) auditTasks() ([]func(context.Context) error, error) {
	trails, c := d.db.Audit(), d.config.Audit
	tasks := []func(context.Context) error{func(ctx context.Context) error {
		return trails.Trim(ctx, trail.Retention(c.Retention))
	}}
	writers, err := sinkWriters(c, d.config.Node)
	if err != nil {
		return nil, err
	}
	d.metrics.ExpectSinks(sinkNames...) // those without a sink too: an alarm rests on them
	for name, writer := range writers {
		tasks = append(tasks, sink.NewFollower(sink.Options{
			Name: name + ":" + d.config.Node, Source: trails, Writer: writer, Logger: d.log,
			Lost: func(entries int) { d.metrics.AuditLost(name, entries) },
		}).Run)
	}
	return tasks, nil
}

// The kinds of sinks.
const (
	sinkFile   = "file"
	sinkSyslog = "syslog"
)

var sinkNames = []string{sinkFile, sinkSyslog}

// sinkWriters returns the configured sinks by their kind.
func sinkWriters(c config.Audit, node string) (map[string]sink.Writer, error) {
	writers := map[string]sink.Writer{}
	if c.File != "" {
		writers[sinkFile] = sink.NewFile(c.File)
	}
	if c.Syslog != "" {
		w, err := sink.NewSyslog(c.Syslog, node)
		if err != nil {
			return nil, err
		}
		writers[sinkSyslog] = w
	}
	return writers, nil
}
