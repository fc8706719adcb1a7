package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Daemon is the sessiond program.
type Daemon struct {
	RADIUS string // its accounting address, since the last Start
	HTTP   string // address of /metrics, /healthz, /readyz

	Args []string // more arguments, from the next start on

	sessiond, sessionctl string
	config, grpc         string
	out                  *output
	run                  *process
}

func newDaemon(o Options, config, grpc string) *Daemon {
	return &Daemon{sessiond: o.Sessiond, sessionctl: o.Sessionctl, config: config, grpc: grpc}
}

// Start starts sessiond, again after Kill or Stop, and waits until it is ready.
func (d *Daemon) Start(ctx context.Context) error {
	if err := d.Launch(ctx); err != nil {
		return err
	}
	return d.AwaitReady(ctx)
}

// Launch starts sessiond without waiting for readiness.
func (d *Daemon) Launch(ctx context.Context) (err error) {
	if err := d.begin(); err != nil {
		return err
	}
	d.HTTP, err = d.listening(ctx, "http")
	return err
}

func (d *Daemon) begin() (err error) {
	d.out = newOutput()
	cmd := exec.Command(d.sessiond, append([]string{"--config", d.config}, d.Args...)...)
	cmd.Stdout, cmd.Stderr = d.out, d.out
	d.run, err = startProcess(cmd)
	return err
}

// Refuse starts a sessiond that should end by itself, and returns its exit
// code.
func (d *Daemon) Refuse(ctx context.Context) (int, error) {
	if err := d.begin(); err != nil {
		return 0, err
	}
	select {
	case <-d.run.exited:
		return d.run.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("sessiond goes on:\n%s", d.out)
	}
}

// AwaitReady waits until sessiond answers accounting.
func (d *Daemon) AwaitReady(ctx context.Context) (err error) {
	err = until(ctx, "sessiond to be ready", func() (bool, error) {
		select {
		case <-d.run.exited:
			return false, fmt.Errorf("sessiond ended:\n%s", d.out)
		default:
		}
		code, _, err := d.Get(ctx, "/readyz")
		return code == http.StatusOK, err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.out)
	}
	d.RADIUS, err = d.listening(ctx, "radius")
	return err
}

// listening reads a service's address from the log.
func (d *Daemon) listening(ctx context.Context, service string) (string, error) {
	var entry struct{ Msg, Service, Address string }
	_, err := d.out.await(ctx, d.run.exited, func(line []byte) bool {
		return bytes.Contains(line, []byte(`"listening"`)) &&
			json.Unmarshal(line, &entry) == nil && entry.Service == service
	})
	if err != nil {
		return "", fmt.Errorf("sessiond does not listen for %s: %w\n%s", service, err, d.out)
	}
	return entry.Address, nil
}

// Listening returns sessiond's accounting addresses, in the order of its
// configuration.
func (d *Daemon) Listening() []string {
	var addresses []string
	for line := range strings.Lines(d.Log()) {
		var entry struct{ Msg, Service, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" && entry.Service == "radius" {
			addresses = append(addresses, entry.Address)
		}
	}
	return addresses
}

// Kill ends sessiond with SIGKILL.
func (d *Daemon) Kill() error { return d.run.end(syscall.SIGKILL) }

// Stop ends sessiond with SIGTERM and reports its exit code.
func (d *Daemon) Stop() (int, error) {
	err := d.run.end(syscall.SIGTERM)
	return d.run.cmd.ProcessState.ExitCode(), err
}

// Pause stops sessiond's execution, with its connections and sockets open,
// until Resume or Kill.
func (d *Daemon) Pause() error { return d.run.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume continues a paused sessiond.
func (d *Daemon) Resume() error { return d.run.cmd.Process.Signal(syscall.SIGCONT) }

// AwaitLines waits until sessiond has printed this many lines, is ready, or has
// ended.
func (d *Daemon) AwaitLines(ctx context.Context, lines int) error {
	seen := 0
	_, err := d.out.await(ctx, d.run.exited, func(line []byte) bool {
		seen++
		return seen >= lines || bytes.Contains(line, []byte(`"msg":"ready"`))
	})
	if err != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// Hangup makes sessiond reload its configuration.
func (d *Daemon) Hangup() error { return d.run.cmd.Process.Signal(syscall.SIGHUP) }

// Reload changes the configuration, makes sessiond reload it, and reports
// whether sessiond accepted it.
func (d *Daemon) Reload(ctx context.Context, change func(config string) string) (taken bool, err error) {
	if err := d.Edit(change); err != nil {
		return false, err
	}
	const yes, no = `"msg":"reloaded"`, `"msg":"reload refused`
	before := d.Log()
	if err := d.Hangup(); err != nil {
		return false, err
	}
	err = until(ctx, "the reload", func() (bool, error) {
		log := d.Log()
		taken = strings.Count(log, yes) > strings.Count(before, yes)
		return taken || strings.Count(log, no) > strings.Count(before, no), nil
	})
	return taken, err
}

// Edit changes the configuration, which sessiond reads at the next start or reload.
func (d *Daemon) Edit(change func(config string) string) error {
	text, err := os.ReadFile(d.config)
	if err != nil {
		return err
	}
	return os.WriteFile(d.config, []byte(change(string(text))), 0o600)
}

// Log returns sessiond's output since its start.
func (d *Daemon) Log() string { return d.out.String() }

// Get sends a GET request to the HTTP listener.
func (d *Daemon) Get(ctx context.Context, path string) (code int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.HTTP+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// Metric returns the value of one series, written as /metrics prints it.
func (d *Daemon) Metric(ctx context.Context, series string) (string, error) {
	_, body, err := d.Get(ctx, "/metrics")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("no series %s", series)
}

// Dial returns a connection to sessiond's gRPC. The caller must close it.
func (d *Daemon) Dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(d.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// Serving reports whether gRPC health says that sessiond serves.
func (d *Daemon) Serving(ctx context.Context) (bool, error) {
	c, err := d.Dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	answer, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return false, err
	}
	return answer.GetStatus() == healthpb.HealthCheckResponse_SERVING, nil
}

// PID is the process id of the sessiond that was started last.
func (d *Daemon) PID() int { return d.run.cmd.Process.Pid }

// Ctl runs sessionctl and returns its output.
func (d *Daemon) Ctl(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := d.CtlTo(ctx, &out, args...)
	return out.String(), err
}

// CtlTo runs sessionctl with its output to out.
func (d *Daemon) CtlTo(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, d.sessionctl, append([]string{"--addr", d.grpc}, args...)...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("sessionctl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return nil
}

// errNotYet is the error of a wait that timed out.
var errNotYet = errors.New("waited in vain for")
