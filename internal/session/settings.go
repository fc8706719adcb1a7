package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
)

// The database keeps the live settings as text that a person can read and set:
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

// parseSettings lays the database's settings over those in force. What cannot
// be read stays as it is and is reported.
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
	if d < time.Second {
		return fmt.Errorf("%v is below one second", d)
	}
	*field = d
	return nil
}

// loadSettings stores the first values where the database has none, and applies
// those it has.
func (m *Manager) loadSettings(ctx context.Context) error {
	_, err := m.changeSettings(ctx, func(now inspect.Settings) (inspect.Settings, error) {
		text, err := m.store.Settings(ctx)
		if err != nil {
			return now, err
		}
		if missing := missingSettings(text); len(missing) > 0 {
			if err := m.store.InitSettings(ctx, formatSettings(now, missing)); err != nil {
				return now, err
			}
		}
		wanted, bad := parseSettings(now, text)
		if bad != nil && !m.badSettings {
			m.log.Warn("settings in the database cannot be read, ignored", "err", bad)
		}
		m.badSettings = bad != nil
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

// changeSettings puts in force what decide makes of the present settings.
// Changes take turns with all that decide does in the database: settings read
// before a change must not be put in force after it. Switching removal on cuts
// what drains.
func (m *Manager) changeSettings(ctx context.Context, decide func(now inspect.Settings) (inspect.Settings, error)) (inspect.Settings, error) {
	m.applying.Lock()
	defer m.applying.Unlock()
	m.mu.RLock()
	before := m.settings
	m.mu.RUnlock()
	s, err := decide(before)
	if err != nil || before == s && m.applied {
		return s, err
	}
	if before.IdleTimeouts != s.IdleTimeouts || !m.applied {
		if err := m.kernel.SetTimeouts(ctx, s.IdleTimeouts); err != nil {
			return s, err
		}
	}
	m.applied = true
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settings = s
	if before.Removal != s.Removal {
		m.log.Info("setting changed", "subscriber_session_removal", s.Removal.String())
		m.life.SetRemoval(s.Removal)
		now := m.now()
		for inside := range m.life.Drains().Addresses() {
			m.life.Step(m.life.Slot(inside), now)
		}
	}
	return s, nil
}

// Settings returns the live settings.
func (v *Backend) Settings(context.Context) (inspect.Settings, error) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	return v.m.settings, nil
}

// UpdateSettings stores and applies the named settings.
func (v *Backend) UpdateSettings(ctx context.Context, s inspect.Settings, names []string) (inspect.Settings, error) {
	return v.m.changeSettings(ctx, func(wanted inspect.Settings) (inspect.Settings, error) {
		if err := wanted.Merge(s, names); err != nil {
			return wanted, err
		}
		if err := v.m.store.SetSettings(ctx, formatSettings(wanted, names)); err != nil {
			return wanted, unavailable(err)
		}
		return wanted, nil
	})
}
