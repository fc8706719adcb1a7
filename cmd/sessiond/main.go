package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// version is set by the build.
var version = "unknown"

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration
)

func main() {
	limitProcessors()
	signal.Ignore(syscall.SIGPIPE) // the reader of the log may end before the program does
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	os.Exit(run(ctx, os.Args[1:], hangups, os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments. It returns the exit code.
func run(ctx context.Context, args []string, hangups <-chan os.Signal, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sessiond", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "configuration `FILE` (required; see sessiond.example.yaml)")
	check := flags.Bool("check", false, "validate the configuration and exit, without touching Redis or the kernel")
	live := flags.Bool("live", false, "with --check: examine the machine, its kernel and Redis as well, print what is to be mended and by which command, and exit with 1 if something must be; nothing is changed")
	output := flags.String("output", outputText, "`format` of the findings of --live: text, or json, one object a line")
	barrier := flags.Bool("barrier", false, "raise the barrier on nat.outside_interfaces, so that no packet with an inside source leaves before sessiond runs, and exit without touching Redis or the rest of the kernel")
	lookup := flags.String("deterministic", "", "print the block of an inside address, or the inside address of a public port, of a group in deterministic mode, from the configuration alone: `INSIDE|OUTSIDE:PORT`")
	removal := flags.Bool("removal", false, "print a shell script that takes from the kernel what sessiond leaves there when it ends, and exit")
	discard := flags.Bool("discard-unconfigured", false, "end the subscribers of groups, prefixes and blocks that are in Redis and not in the configuration, instead of serving them to their end")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	}
	if *showVersion {
		fmt.Fprintln(stdout, "sessiond", version)
		return exitDone
	}
	if *file == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "sessiond: name the configuration with --config FILE, and nothing else")
		return exitUsage
	}
	if *live && !*check || *output != outputText && *output != outputJSON || *output != outputText && !*live {
		fmt.Fprintln(stderr, "sessiond: --live goes with --check, and --output text or json with --live")
		return exitUsage
	}
	if *lookup != "" {
		return lookUp(*file, *lookup, stdout, stderr)
	}
	return start(ctx, *file, orders{*check, *live, *output, *barrier, *removal, *discard}, hangups, stdout, stderr)
}

// orders are the command line's flags for a start.
type orders struct {
	check, live               bool
	output                    string
	barrier, removal, discard bool
}

// start loads the configuration and serves, or only checks it or raises the
// barrier.
func start(ctx context.Context, file string, o orders, hangups <-chan os.Signal, stdout, stderr io.Writer) int {
	c, warnings, err := config.Load(file)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	out := newLogWriter(stderr, func(lines int) {
		newLogger(c.Log, stderr).Warn("lines of the log are left out, as its reader took none for a while", "lines", lines)
	})
	defer out.close()
	log := newLogger(c.Log, out)
	for _, w := range append(warnings, config.Exposed(file)...) {
		log.Warn("configuration", "warning", w)
	}
	switch {
	case o.live:
		return examine(ctx, file, c, o.output, stdout, stderr)
	case o.check:
		fmt.Fprintf(stdout, "%s: the configuration is good\n", file)
		return exitDone
	case o.barrier:
		return raiseBarrier(c, log, stdout, stderr)
	case o.removal:
		return printRemoval(c, stdout, stderr)
	}
	log.Info("sessiond starts", "version", version, "node", c.Node)
	d, err := newDaemon(ctx, c, o.discard, log)
	if err != nil {
		log.Error("cannot start", "error", err)
		return exitFailed
	}
	if err := d.run(ctx, reloads(hangups, file, log)); err != nil {
		log.Error("stopped", "error", err)
		return exitFailed
	}
	log.Info("stopped, NAT stays in place")
	return exitDone
}

func raiseBarrier(c config.Config, log *slog.Logger, stdout, stderr io.Writer) int {
	if c.NAT.Backend == backendMemory {
		fmt.Fprintln(stderr, "sessiond: nat.backend is memory: nothing is forwarded, and there is nothing to keep back")
		return exitFailed
	}
	if err := nftnat.RaiseBarrier(natOptions(c, log)); err != nil {
		fmt.Fprintf(stderr, "sessiond: %v\nPut it up again once the interfaces are there and have the qdisc clsact (kernel modules sch_ingress and cls_bpf), and forward no packets before.\n", err)
		return exitFailed
	}
	fmt.Fprintf(stdout, "the barrier stands on %s\n", strings.Join(c.NAT.OutsideInterfaces, ", "))
	return exitDone
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// reloads returns a function that waits for a hangup and reads the
// configuration. Its error is the context's, or the reason why the file is
// invalid.
func reloads(hangups <-chan os.Signal, file string, log *slog.Logger) func(context.Context) (config.Config, error) {
	return func(ctx context.Context) (config.Config, error) {
		select {
		case <-ctx.Done():
			return config.Config{}, ctx.Err()
		case <-hangups:
		}
		c, warnings, err := config.Load(file)
		for _, w := range append(warnings, config.Exposed(file)...) {
			log.Warn("configuration", "warning", w)
		}
		return c, err
	}
}
