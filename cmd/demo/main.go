package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	sessiond := flags.String("sessiond", "bin/sessiond", "the sessiond `PROGRAM`")
	sessionctl := flags.String("sessionctl", "bin/sessionctl", "the sessionctl `PROGRAM`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	began := time.Now()
	s := &show{out: out}
	s.chapter("A lab of network namespaces: subscriber -- CGN -- internet; sessiond, Redis and a BNG beside it")
	r, err := rig.Start(ctx, rig.Options{
		Sessiond: *sessiond, Sessionctl: *sessionctl, Hold: holdTime,
		// One public address, which alice and the neighbour share.
		Lab: netlab.Options{Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s.seen("sessiond is ready, it answers accounting at %s", r.Daemon.RADIUS)
	if err := play(ctx, &stage{Rig: r, show: s}); err != nil {
		return fmt.Errorf("%w\n\nsessiond printed:\n%s", err, r.Daemon.Log())
	}
	s.chapter(fmt.Sprintf("Every step held (%d checks, %.1f s). The lab is taken down.", s.checks, time.Since(began).Seconds()))
	return nil
}
