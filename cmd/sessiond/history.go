package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/history/keeper"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/metrics"
)

// pastNAT is the configured history of the NAT.
type pastNAT struct {
	keeper *keeper.Keeper // nil if it cannot be opened
	failed error          // why it cannot be opened
	groups func() []string
}

// openHistory opens the history, if one is configured. One that cannot be opened is logged and
// alarmed: NAT does not wait for it.
func (d *daemon) openHistory(context.Context) error {
	c := d.config.History
	if c.Path == "" {
		return nil
	}
	d.history = &pastNAT{groups: d.db.GroupNames}
	d.closers = append(d.closers, d.history)
	d.metrics.WatchHistory(d.history)
	if d.history.failed = d.history.open(c, d); d.history.failed != nil {
		d.log.Error("no history of the NAT is kept until the next start; its log waits in Redis", "error", d.history.failed, "alarm", "sessiond_history_up")
	}
	return nil
}

func (p *pastNAT) open(c config.History, d *daemon) error {
	if err := os.MkdirAll(c.Path, 0o700); err != nil {
		return err
	}
	file := c.SigningKey
	if file == "" {
		file = filepath.Join(c.Path, "signing.key")
	}
	key, err := history.LoadKey(file, keyName(d.config.Node))
	if err != nil {
		return err
	}
	store, err := history.Open(history.Options{Path: c.Path, Key: key, MaxAge: c.MaxAge, MaxOctets: c.MaxOctets})
	if err != nil {
		return err
	}
	d.log.Info("history of the NAT", "path", c.Path, "public_key", key.Public())
	p.keeper = keeper.New(keeper.Options{
		Store: store, Log: d.db, Reader: d.historyReader(), Groups: d.db.GroupNames, Quarantine: d.holdOf, Interim: c.Interim,
		PublicKey: key.Public(), Publish: d.publishCheckpoint, Now: time.Now, Logger: d.log,
	})
	return nil
}

// historyReader returns the name of the history among the readers of the log.
func (d *daemon) historyReader() string { return "history " + d.config.Node }

// keyName returns the name of a node as the name of its key, which has no space and no plus sign.
func keyName(node string) string {
	return strings.Map(func(r rune) rune {
		if r == '+' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return '-'
		}
		return r
	}, node)
}

// holdOf returns the quarantine of a group's blocks; 0 if the group is not configured.
func (d *daemon) holdOf(group string) time.Duration {
	for _, g := range d.manager.Groups() {
		if g.Name == group {
			return g.Hold
		}
	}
	return 0
}

// publishCheckpoint puts a signed checkpoint of a group's history into the audit trail, of which the
// copies go to other machines.
func (d *daemon) publishCheckpoint(ctx context.Context, group, checkpoint string) error {
	ctx = audit.With(ctx, &audit.Order{Actor: audit.Actor{Name: "sessiond"}, Method: history.CheckpointMethod})
	return d.db.Audit().Note(ctx, func(e *audit.Entry) { e.Group, e.New = group, checkpoint })
}

// Close closes the files.
func (p *pastNAT) Close() error {
	if p.keeper == nil {
		return nil
	}
	return p.keeper.Close()
}

// History implements metrics.HistorySource.
func (p *pastNAT) History() (h metrics.History) {
	if p.keeper != nil {
		s := p.keeper.Stats()
		h = metrics.History{Records: s.Records, Gaps: s.Gaps, Through: s.Through, Octets: s.Octets, Up: s.Err == nil}
	} else {
		h.Gaps = map[string]uint64{}
	}
	for _, group := range p.groups() {
		h.Gaps[group] += 0 // there for the alarm
	}
	return h
}

// asked returns the history for those who ask.
func (d *daemon) asked() (control.History, error) {
	switch {
	case d.history == nil:
		return nil, inspect.ErrNoHistory
	case d.history.keeper == nil:
		return nil, fmt.Errorf("%w: %w", inspect.ErrHistoryDown, d.history.failed)
	}
	return d.history.keeper, nil
}
