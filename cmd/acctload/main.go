package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sessiond/sessiond/internal/acctload"
)

// version is set by the build.
var version = "unknown"

// Exit codes, promised to scripts.
const (
	exitDone   = 0
	exitFailed = 1 // it could not run, or with --strict: a request was not answered, or a reply was bad
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings as arguments. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintln(stderr, "acctload:", err)
		return exitUsage
	case c.version:
		fmt.Fprintln(stdout, "acctload", version)
		return exitDone
	}
	if err := load(ctx, c, stdout); err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	return exitDone
}

var errNotClean = errors.New("acctload: requests were lost or not sent, or replies were bad")

func load(ctx context.Context, c *command, stdout io.Writer) error {
	result, err := acctload.Run(ctx, c.options)
	if err != nil {
		return err
	}
	if err := newReport(c, result).print(stdout, c.output); err != nil {
		return fmt.Errorf("acctload: print: %w", err)
	}
	if c.strict && !result.Clean() {
		return errNotClean
	}
	return nil
}
