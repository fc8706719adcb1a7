package main

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// app is one run of the command: the parts that the commands of every noun use.
type app struct {
	*connection
	printer
	completer
	stdin    io.Reader
	terminal func() bool // whether a person can answer on stdin
	utc      bool        // --utc
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	daemon := &connection{}
	a := &app{
		connection: daemon,
		printer: printer{
			stdout: &printed{to: stdout, terminalScreen: terminalOf(stdout)},
			stderr: &printed{to: stderr, terminalScreen: terminalOf(stderr)},
			now:    time.Now, zone: time.Local,
		},
		completer: completer{daemon},
		stdin:     stdin,
		terminal:  func() bool { return isTerminal(stdin) },
	}
	a.showProgress()
	return a
}

// showProgress has long work shown where stderr is a terminal.
func (a *app) showProgress() {
	if a.stderr.columns() == 0 {
		return
	}
	a.progress = &progressLine{to: a.stderr.to, behind: a.stdout.columns() > 0, now: a.now}
	a.waits = a.progress
	a.stdout.before, a.stderr.before = a.progress.hide, a.progress.hide
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	a.progress.start()
	err := errors.Join(root.ExecuteContext(ctx), a.close())
	a.progress.stop()
	return a.report(err)
}

const rootLong = `sessionctl shows and steers sessiond, which ties carrier-grade NAT to the life
of subscribers: a deleted subscriber record ends that subscriber's NAT sessions.

Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 3 cannot reach the
daemon, or (audit verify) a part of Redis, 4 (status) the daemon is not ready.

Formats of -o: table, which leaves columns out where the terminal is narrow;
wide, with all of them; and for programs json, one object a line, yaml, one
document an item, and csv, one record an item (a text that a spreadsheet would
take for a formula has an apostrophe in front). Times of tables and arguments are
local, or UTC with --utc; the other formats have UTC. Colours are for terminals,
and NO_COLOR switches them off.`

func (a *app) root() *cobra.Command {
	root := group("sessionctl", "See and steer sessiond",
		subscriberCommands{a}.command(),
		bindingCommands{a}.command(),
		sessionCommands{a}.command(),
		poolCommands{a}.command(),
		dropCommands{a}.command(),
		settingsCommands{a}.command(),
		subscriberCommands{a}.watchCommand(),
		daemonCommands{a}.statusCommand(),
		daemonCommands{a}.reconcileCommand(),
		removalCommands{a}.command(),
		nasCommands{a}.command(),
		mappingCommands{a}.command(),
		deskCommands{a}.topCommand(),
		deskCommands{a}.explainCommand(),
		auditCommands{a}.command(),
		historyCommands{a}.command(),
		doctorCommands{a}.command(),
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
	root.AddCommand(a.manCommand(root))
	narrowHelp(root)
	return root
}

func (a *app) globalFlags(root *cobra.Command) {
	address := defaultAddress
	if env := os.Getenv(addressVariable); env != "" {
		address = env
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.address, "addr", address, "`address` of the daemon, host:port or unix:PATH; by itself "+defaultSocket+" where that can be opened (environment: "+addressVariable+")")
	flags.StringVarP((*string)(&a.format), "output", "o", string(formatTable), "output `format`: table, wide, json, yaml or csv")
	flags.BoolVar(&a.utc, "utc", false, "show times in UTC, not in local time")
	flags.DurationVar(&a.timeout, "timeout", defaultTimeout, "give up on an answer after this `time`; watch and session list wait on")
	flags.StringVar(&a.tls.ca, "tls-ca", "", "use TLS; trust the certificates in this PEM `file` (system: the system's own)")
	flags.StringVar(&a.tls.cert, "tls-cert", "", "use TLS; show this PEM certificate `file`")
	flags.StringVar(&a.tls.key, "tls-key", "", "PEM key `file` of --tls-cert")
	flags.StringVar(&a.token, "token-file", os.Getenv(tokenVariable), "send the token in this `file` (environment: "+tokenVariable+")")
	complete(root, "output", outputFormats...)
	complete(root, "timeout")
}

func (a *app) checkFlags() error {
	if !slices.Contains(outputFormats, string(a.format)) {
		return usagef("--output must be one of %s, not %q", strings.Join(outputFormats, ", "), a.format)
	}
	a.encoder = encoderOf(a.format)
	a.stdout.wide = a.format == formatWide
	if a.utc {
		a.zone = time.UTC
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
