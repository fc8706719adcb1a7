package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// app is one run of the command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	terminal       func() bool // whether a person can answer on stdin

	// Global flags.
	address string
	output  string
	timeout time.Duration
	tls     tlsFiles

	conn  *grpc.ClientConn // opened by the first call
	plans map[protoreflect.FullName]*jsonPlan
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	a := &app{stdin: stdin, stdout: printed{stdout}, stderr: printed{stderr}, now: time.Now}
	a.terminal = func() bool { return isTerminal(stdin) }
	return a
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if a.conn != nil {
		err = errors.Join(err, a.conn.Close())
	}
	return a.report(err)
}

const rootLong = `sessionctl shows and steers sessiond, which ties carrier-grade NAT to the life of
subscribers: a deleted subscriber record ends that subscriber's NAT sessions.

Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 3 cannot reach the
daemon, 4 (status) the daemon is not ready. With -o json every line of output is
one JSON object.`

func (a *app) root() *cobra.Command {
	root := group("sessionctl", "See and steer sessiond",
		a.subscriberCommand(),
		a.bindingCommand(),
		a.sessionCommand(),
		a.poolCommand(),
		a.settingsCommand(),
		a.watchCommand(),
		a.statusCommand(),
		a.reconcileCommand(),
		a.removalCommand(),
		a.nasCommand(),
	)
	root.Long = rootLong
	root.Version = version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if !c.Flags().Changed("addr") && os.Getenv(addressVariable) == "" && a.tls == (tlsFiles{}) {
			a.address = reachable(defaultSocket)
		}
		return a.checkFlags()
	}
	a.globalFlags(root)
	return root
}

func (a *app) globalFlags(root *cobra.Command) {
	address := defaultAddress
	if env := os.Getenv(addressVariable); env != "" {
		address = env
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.address, "addr", address, "`address` of the daemon, host:port or unix:PATH; by itself "+defaultSocket+" where that can be opened (environment: "+addressVariable+")")
	flags.StringVarP(&a.output, "output", "o", outputTable, "output `format`, table or json")
	flags.DurationVar(&a.timeout, "timeout", defaultTimeout, "give up on an answer after this `time`; watch and session list wait on")
	flags.StringVar(&a.tls.ca, "tls-ca", "", "use TLS; trust the certificates in this PEM `file` (system: the system's own)")
	flags.StringVar(&a.tls.cert, "tls-cert", "", "use TLS; show this PEM certificate `file`")
	flags.StringVar(&a.tls.key, "tls-key", "", "PEM key `file` of --tls-cert")
	complete(root, "output", outputTable, outputJSON)
	complete(root, "timeout")
}

func (a *app) checkFlags() error {
	if a.output != outputTable && a.output != outputJSON {
		return usagef("--output must be table or json, not %q", a.output)
	}
	if a.timeout <= 0 {
		return usagef("--timeout must be above zero")
	}
	if (a.tls.cert == "") != (a.tls.key == "") {
		return usagef("--tls-cert and --tls-key belong together")
	}
	return nil
}

// group returns a command that has only subcommands.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; see %q", args[0], c.CommandPath()+" --help")
			}
			if !c.HasParent() {
				return c.Help()
			}
			return usagef("say what to do; see %q", c.CommandPath()+" --help")
		},
	}
	c.AddCommand(below...)
	return c
}
