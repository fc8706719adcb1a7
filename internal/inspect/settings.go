package inspect

import (
	"fmt"
	"time"
)

// IdleTimeouts are the idle timeouts of conntrack entries, in whole seconds.
// Its fields are those of nftnat.Timeouts, so that one converts to the other.
type IdleTimeouts struct {
	TCPEstablished time.Duration // RFC 5382 REQ-5: at least 2 h 4 min
	TCPTransitory  time.Duration // RFC 5382 REQ-5: at least 4 min
	UDP            time.Duration // RFC 4787 REQ-5: at least 2 min
	ICMP           time.Duration // RFC 5508 REQ-2: at least 60 s
}

// Settings can be changed while the daemon runs; the database keeps them.
type Settings struct {
	Removal      RemovalMode // the toggle subscriber_session_removal
	IdleTimeouts IdleTimeouts
}

// Names of the settings, the same in field masks, in the database and on the
// command line.
const (
	SettingRemoval        = "subscriber_session_removal"
	SettingTCPEstablished = "idle_timeouts.tcp_established"
	SettingTCPTransitory  = "idle_timeouts.tcp_transitory"
	SettingUDP            = "idle_timeouts.udp"
	SettingICMP           = "idle_timeouts.icmp"
)

// SettingNames returns the names of all settings.
func SettingNames() []string {
	return []string{SettingRemoval, SettingTCPEstablished, SettingTCPTransitory, SettingUDP, SettingICMP}
}

// Merge copies the named settings of o into s.
func (s *Settings) Merge(o Settings, names []string) error {
	for _, name := range names {
		if name == SettingRemoval {
			s.Removal = o.Removal
			continue
		}
		to, from := s.IdleTimeouts.Field(name), o.IdleTimeouts.Field(name)
		if to == nil {
			return fmt.Errorf("unknown setting %q", name)
		}
		*to = *from
	}
	return nil
}

// Field returns the timeout with that setting's name, nil if there is none.
func (t *IdleTimeouts) Field(name string) *time.Duration {
	switch name {
	case SettingTCPEstablished:
		return &t.TCPEstablished
	case SettingTCPTransitory:
		return &t.TCPTransitory
	case SettingUDP:
		return &t.UDP
	case SettingICMP:
		return &t.ICMP
	}
	return nil
}
