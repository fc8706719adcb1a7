package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/doctor"
	"github.com/sessiond/sessiond/internal/doctor/facts"
)

// Values of --output.
const (
	outputText = "text"
	outputJSON = "json" // for sessionctl doctor
)

// examine prints what is to be mended, of the machine, its kernel, Redis and the files. It returns
// the exit code.
func examine(ctx context.Context, file string, c config.Config, output string, stdout, stderr io.Writer) int {
	quiet := slog.New(slog.DiscardHandler) // the checks tell it
	redis.SetLogger(clientLog{quiet})
	findings := doctor.Examine(facts.Read(ctx, facts.Options{File: file, Config: c, NAT: natOptions(c, quiet)}))
	if err := printFindings(findings, output, stdout); err != nil {
		fmt.Fprintf(stderr, "sessiond: %v\n", err)
		return exitFailed
	}
	if doctor.Mends(findings) {
		return exitFailed
	}
	return exitDone
}

func printFindings(findings []doctor.Finding, output string, stdout io.Writer) error {
	if output == outputText {
		_, err := io.WriteString(stdout, doctor.Text(findings, len(doctor.Checks())))
		return err
	}
	lines := json.NewEncoder(stdout)
	for _, f := range findings {
		if err := lines.Encode(f); err != nil {
			return err
		}
	}
	return nil
}
