package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// The database keeps the live settings as text for people to read and set:
// "on", "off" or "observe" for the toggle, Go durations for the timeouts.

func formatSettings(s inspect.Settings, names []string) map[string]string {
	text := make(map[string]string, len(names))
	for _, name := range names {
		if name == inspect.SettingRemoval {
			text[name] = s.Removal.String()
		} else if d := inspect.TimeoutField(&s.IdleTimeouts, name); d != nil {
			text[name] = d.String()
		}
	}
	return text
}

// parseSettings returns the settings in force with those of the database put
// over them. A setting that cannot be parsed stays as it is, and is in the
// error.
func parseSettings(now inspect.Settings, text map[string]string) (inspect.Settings, error) {
	var bad []error
	for name, value := range text {
		if err := parseSetting(&now, name, strings.TrimSpace(value)); err != nil {
			bad = append(bad, fmt.Errorf("sessiond:settings %s: %w", name, err))
		}
	}
	return now, errors.Join(bad...)
}

func parseSetting(s *inspect.Settings, name, value string) error {
	if name == inspect.SettingRemoval {
		mode, err := inspect.ParseRemovalMode(value)
		if err == nil {
			s.Removal = mode
		}
		return err
	}
	field := inspect.TimeoutField(&s.IdleTimeouts, name)
	if field == nil {
		return nil // a newer version's setting
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return err
	}
	if d < time.Second && !(d == 0 && inspect.MayBeZero(name)) {
		return fmt.Errorf("%v is below one second", d)
	}
	*field = d
	return nil
}

// settingsStore keeps the live settings as text.
type settingsStore interface {
	Settings(ctx context.Context) (map[string]string, error)
	InitSettings(ctx context.Context, first map[string]string) error
}

// timeoutKernel sets the idle timeouts of sessions.
type timeoutKernel interface {
	SetTimeouts(ctx context.Context, t nat.Timeouts) error
}

// liveSettings keeps the settings in force equal to those in the database.
type liveSettings struct {
	*sharedState
	store  settingsStore
	kernel timeoutKernel

	applying   sync.Mutex // serializes changes; taken before mu
	applied    bool       // the kernel has the settings; guarded by applying
	unreadable bool       // it was logged that the database's settings cannot be parsed; guarded by applying

	inForce inspect.Settings // guarded by mu
}

// current returns the settings in force.
func (l *liveSettings) current() inspect.Settings {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.inForce
}

// Load stores the present values of settings that the database lacks, and
// applies those that it has.
func (l *liveSettings) Load(ctx context.Context) error {
	_, err := l.change(ctx, func(now inspect.Settings) (inspect.Settings, error) {
		text, err := l.store.Settings(ctx)
		if err != nil {
			return now, err
		}
		if missing := missingSettings(text); len(missing) > 0 {
			if err := l.store.InitSettings(ctx, formatSettings(now, missing)); err != nil {
				return now, err
			}
		}
		wanted, bad := parseSettings(now, text)
		if bad != nil && !l.unreadable {
			l.log.Warn("settings in the database cannot be read, ignored", "error", bad)
		}
		l.unreadable = bad != nil
		return wanted, nil
	})
	return err
}

func missingSettings(text map[string]string) []string {
	var names []string
	for _, name := range inspect.SettingNames() {
		if _, ok := text[name]; !ok {
			names = append(names, name)
		}
	}
	return names
}

// change puts the settings that decide returns in force. Changes are serialized
// together with decide's database access: settings read before a change must
// not be put in force after it. Switching removal on cuts the draining slots.
func (l *liveSettings) change(ctx context.Context, decide func(now inspect.Settings) (inspect.Settings, error)) (inspect.Settings, error) {
	l.applying.Lock()
	defer l.applying.Unlock()
	before := l.current()
	s, err := decide(before)
	if err != nil || before == s && l.applied {
		return s, err
	}
	if before.IdleTimeouts != s.IdleTimeouts || !l.applied {
		if err := l.kernel.SetTimeouts(ctx, s.IdleTimeouts); err != nil {
			return s, err
		}
	}
	l.applied = true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inForce = s
	if before.Removal != s.Removal {
		l.log.Info("setting changed", "subscriber_session_removal", s.Removal.String())
		l.life.SetRemoval(s.Removal)
		now := l.now()
		for inside := range l.life.Drains().Addresses() {
			l.life.Step(l.life.Slot(inside), now)
		}
	}
	return s, nil
}

// StoreAll stores the settings in force that the database lacks.
func (l *liveSettings) StoreAll(ctx context.Context) error {
	return l.store.InitSettings(ctx, formatSettings(l.current(), inspect.SettingNames()))
}

// Settings returns the live settings.
func (v *Backend) Settings(context.Context) (inspect.Settings, error) {
	return v.settings.current(), nil
}

// UpdateSettings stores and applies the named settings.
func (v *Backend) UpdateSettings(ctx context.Context, s inspect.Settings, names []string) (inspect.Settings, error) {
	return v.settings.change(ctx, func(wanted inspect.Settings) (inspect.Settings, error) {
		if err := wanted.Merge(s, names); err != nil {
			return wanted, err
		}
		if err := v.store.SetSettings(ctx, formatSettings(wanted, names)); err != nil {
			return wanted, unavailable(err)
		}
		return wanted, nil
	})
}
