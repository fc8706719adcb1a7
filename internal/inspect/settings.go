package inspect

import (
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Settings can be changed at run time; the database keeps them.
type Settings struct {
	Removal      RemovalMode // the toggle subscriber_session_removal
	IdleTimeouts nat.Timeouts
}

// Names of the settings, the same in field masks, in the database and on the
// command line.
const (
	SettingRemoval        = "subscriber_session_removal"
	SettingTCPEstablished = "idle_timeouts.tcp_established"
	SettingTCPTransitory  = "idle_timeouts.tcp_transitory"
	SettingUDP            = "idle_timeouts.udp"
	SettingICMP           = "idle_timeouts.icmp"

	SettingTCPPartialOpen  = "idle_timeouts.tcp_partial_open"  // 0: as tcp_transitory
	SettingTCPPartialClose = "idle_timeouts.tcp_partial_close" // 0: as tcp_transitory
)

// SettingNames returns the names of all settings.
func SettingNames() []string {
	return []string{
		SettingRemoval, SettingTCPEstablished, SettingTCPTransitory, SettingTCPPartialOpen, SettingTCPPartialClose,
		SettingUDP, SettingICMP,
	}
}

// Merge copies the named settings of o into s.
func (s *Settings) Merge(o Settings, names []string) error {
	for _, name := range names {
		if name == SettingRemoval {
			s.Removal = o.Removal
			continue
		}
		to, from := TimeoutField(&s.IdleTimeouts, name), TimeoutField(&o.IdleTimeouts, name)
		if to == nil {
			return fmt.Errorf("unknown setting %q", name)
		}
		*to = *from
	}
	return nil
}

// TimeoutField returns the timeout of a setting by name, nil if there is none.
func TimeoutField(t *nat.Timeouts, name string) *time.Duration {
	switch name {
	case SettingTCPEstablished:
		return &t.TCPEstablished
	case SettingTCPTransitory:
		return &t.TCPTransitory
	case SettingTCPPartialOpen:
		return &t.TCPPartialOpen
	case SettingTCPPartialClose:
		return &t.TCPPartialClose
	case SettingUDP:
		return &t.UDP
	case SettingICMP:
		return &t.ICMP
	}
	return nil
}

// MayBeZero reports whether the timeout of a setting may be zero, which means another one.
func MayBeZero(name string) bool {
	return name == SettingTCPPartialOpen || name == SettingTCPPartialClose
}
