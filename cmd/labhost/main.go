package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "labhost:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	root := &cobra.Command{
		Use:           "labhost",
		Short:         "Play a host around a CGN: a BNG, a subscriber, an internet host",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newBNG(), newInternet(), newSubscriber(), newRoute(), newStay(), newAsk())
	root.SetArgs(args)
	root.SetOut(stdout)
	return root.ExecuteContext(ctx)
}
