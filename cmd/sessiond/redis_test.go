package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/sessiond/sessiond/internal/config"
)

// TestClientLog: every line of the log is in the configured format, also if the
// client library cannot reach Redis.
func TestClientLog(t *testing.T) {
	for level, heard := range map[slog.Level]bool{slog.LevelInfo: false, slog.LevelDebug: true} {
		var out bytes.Buffer
		log := newLogger(config.Log{Format: "json", Level: level}, &out)
		clientLog{log}.Printf(t.Context(), "failed to dial after %d attempts", 5)
		if heard != json.Valid(out.Bytes()) || !heard && out.Len() != 0 {
			t.Errorf("at %v: %q", level, out.String())
		}
	}
}
