package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/doctor"
)

// doctorCommands are the command that examines the machine of the daemon.
type doctorCommands struct{ *app }

// defaultConfig is where packages and the units of systemd have the configuration.
const defaultConfig = "/etc/sessiond/sessiond.yaml"

func (a doctorCommands) command() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Examine machine, kernel, Redis and files for what is to be mended",
		Example: "  sessionctl doctor --config /etc/sessiond/sessiond.yaml\n  sessionctl doctor -o json",
		Long: `doctor examines the machine of the daemon as the configuration needs it:
sysctls, kernel modules, interfaces, routes and addresses, other tables of
nftables, flowtables, Redis and the rights of its user, clocks, and modes of
files. Of each finding it says why it matters, and which command mends it. It
changes nothing, and works where the daemon is down. The exit code is 1 where
something must be mended.

It runs the sessiond that is beside it, or in PATH, with --check --live. Run it
as root: what it may not read it cannot examine, and says so.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			findings, err := a.findings(c.Context(), file)
			if err != nil {
				return err
			}
			if err := a.showFindings(findings); err != nil {
				return err
			}
			if doctor.Mends(findings) {
				return errors.New("something must be mended")
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", defaultConfig, "configuration `file` of the daemon")
	return c
}

// findings runs the program of the daemon, whose exit code is 0 or 1 with findings.
func (a doctorCommands) findings(ctx context.Context, file string) ([]doctor.Finding, error) {
	program, err := daemonProgram()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "--config", file, "--check", "--live", "--output", "json")
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	err = cmd.Run()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) && failed.ExitCode() == exitUsage {
		return nil, usagef("%s", strings.TrimSpace(says.String()))
	} else if err != nil && (failed == nil || failed.ExitCode() != exitRefused || out.Len() == 0) {
		return nil, fmt.Errorf("run %s: %w: %s", program, err, strings.TrimSpace(says.String()))
	}
	fmt.Fprint(a.stderr, says.String()) // warnings about the configuration
	var findings []doctor.Finding
	for lines := json.NewDecoder(&out); ; {
		var f doctor.Finding
		switch err := lines.Decode(&f); {
		case errors.Is(err, io.EOF):
			return findings, nil
		case err != nil:
			return nil, fmt.Errorf("read the findings of %s: %w", program, err)
		}
		findings = append(findings, f)
	}
}

// daemonProgram returns the path of the sessiond beside this program, or of that in PATH.
func daemonProgram() (string, error) {
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "sessiond")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("sessiond")
	if err != nil {
		return "", errors.New("no program sessiond beside this one or in PATH: doctor runs on the machine of the daemon")
	}
	return path, nil
}

func (a doctorCommands) showFindings(findings []doctor.Finding) error {
	if a.forPeople() {
		_, err := fmt.Fprint(a.stdout, doctor.Text(findings, len(doctor.Checks())))
		return err
	}
	for _, f := range findings {
		err := a.message(&pb.DoctorFinding{
			Check: f.Check, Severity: string(f.Severity), Found: f.Found, Why: f.Why, Command: f.Command, Note: f.Note,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
