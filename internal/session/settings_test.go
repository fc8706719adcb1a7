package session

import (
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

var someSettings = inspect.Settings{
	Removal: inspect.RemovalOn,
	IdleTimeouts: nat.Timeouts{
		TCPEstablished: 7440 * time.Second, TCPTransitory: 240 * time.Second,
		UDP: 300 * time.Second, ICMP: 60 * time.Second,
	},
}

func TestSettingsRoundTrip(t *testing.T) {
	text := formatSettings(someSettings, inspect.SettingNames())
	got, err := parseSettings(inspect.Settings{}, text)
	if err != nil || got != someSettings {
		t.Errorf("%v read as %+v, %v", text, got, err)
	}
}

func TestUnreadableSettingsStay(t *testing.T) {
	got, err := parseSettings(someSettings, map[string]string{
		inspect.SettingRemoval: "maybe",
		inspect.SettingUDP:     "-3s",
		inspect.SettingICMP:    "90s",
		"of_a_newer_version":   "x",
	})
	want := someSettings
	want.IdleTimeouts.ICMP = 90 * time.Second
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, name := range []string{inspect.SettingRemoval, inspect.SettingUDP} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error does not name %s: %v", name, err)
		}
	}
}
