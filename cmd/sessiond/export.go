package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/natlog"
)

// exports sends the log of the NAT to the configured collectors.
type exports struct {
	sinks []*namedSink
}

// namedSink is a sink with its name in metrics and in the database.
type namedSink struct {
	*natlog.Sink // nil if its spool cannot be opened
	name         string
	follower     *natlog.Follower
}

// openExports opens the spools of all collectors. A spool that cannot be opened is logged and
// alarmed: NAT does not wait for it.
func (d *daemon) openExports(context.Context) error {
	c := d.config.Export
	if len(c.Collectors) == 0 {
		return nil
	}
	d.exports = &exports{}
	d.closers = append(d.closers, d.exports)
	if err := os.MkdirAll(c.SpoolPath, 0o700); err != nil {
		d.log.Error("the directory of export.spool.path cannot be made", "error", err)
	}
	for _, x := range c.Collectors {
		s := &namedSink{name: string(x.Protocol) + " " + natlog.TargetName(x.Protocol, x.Target)}
		d.exports.sinks = append(d.exports.sinks, s)
		sink, err := natlog.Open(natlog.Options{
			Protocol: x.Protocol, Target: x.Target, Spool: filepath.Join(c.SpoolPath, spoolName(s.name)), SpoolSize: c.SpoolSize,
			Domain: x.Domain, FixedNames: x.FixedNames, TemplateInterval: x.TemplateInterval, PEN: x.PEN, Batch: x.Batch,
			Interim: c.Interim, Node: d.config.Node, Log: d.log,
		})
		if err != nil {
			d.log.Error("nothing is sent to a collector of the NAT log until the next start", "collector", s.name, "error", err, "alarm", "sessiond_export_up")
			continue
		}
		s.Sink, s.follower = sink, natlog.NewFollower(natlog.FollowerOptions{
			Name: d.readerName(s.name), Log: d.db, To: sink, Groups: d.db.GroupNames,
			Gap: d.metrics.ExportGap, Now: time.Now, Logger: d.log,
		})
	}
	d.metrics.ExpectExport(d.db.GroupNames()...)
	d.metrics.WatchExports(d.exports)
	return nil
}

// readerName returns the name of a sink among the readers of the log.
func (d *daemon) readerName(sink string) string { return "export " + sink + " " + d.config.Node }

// leaveFormer makes the log of each group forget the collectors and the history that this daemon had
// in an earlier configuration: it would be kept for them.
func (d *daemon) leaveFormer(ctx context.Context) error {
	now := map[string]bool{}
	if d.exports != nil {
		for _, s := range d.exports.sinks {
			now[d.readerName(s.name)] = true
		}
	}
	if d.history != nil {
		now[d.historyReader()] = true
	}
	for _, group := range d.db.GroupNames() {
		readers, err := d.db.LogReaders(ctx, group)
		for _, name := range readers {
			ours := name == d.historyReader() || strings.HasPrefix(name, "export ") && strings.HasSuffix(name, " "+d.config.Node)
			if ours && !now[name] {
				err = errors.Join(err, d.db.LeaveLog(ctx, group, name))
			}
		}
		if err != nil { // they are forgotten after a week
			d.log.Warn("former readers of the NAT log are not forgotten yet", "group", group, "error", err)
		}
	}
	return nil
}

// spoolName returns the file name of a spool: readable, and unique by a hash.
func spoolName(name string) string {
	h := fnv.New32a()
	_, _ = io.WriteString(h, name)
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	return fmt.Sprintf("%.60s-%08x.spool", readable, h.Sum32())
}

// tasks returns the tasks that follow the log and send.
func (e *exports) tasks() (tasks []func(context.Context) error) {
	for _, s := range e.sinks {
		if s.Sink == nil {
			continue
		}
		tasks = append(tasks, s.follower.Run, s.Run)
	}
	return tasks
}

// Close closes the spools.
func (e *exports) Close() error {
	var errs []error
	for _, s := range e.sinks {
		if s.Sink != nil {
			errs = append(errs, s.Sink.Close())
		}
	}
	return errors.Join(errs...)
}

// Exports implements metrics.ExportSource.
func (e *exports) Exports() (list []metrics.Export) {
	for _, s := range e.sinks {
		if s.Sink == nil {
			list = append(list, metrics.Export{Sink: s.name})
			continue
		}
		stats, err := s.Stats()
		list = append(list, metrics.Export{
			Sink: s.name, Sent: stats.Sent, Dropped: stats.Dropped, SpoolOctets: stats.SpoolOctets, Up: err == nil && stats.LastError == nil,
		})
	}
	return list
}

// logsNAT reports whether a configuration needs the log of the NAT.
func logsNAT(c *config.Config) bool { return len(c.Export.Collectors) > 0 || c.History.Path != "" }
