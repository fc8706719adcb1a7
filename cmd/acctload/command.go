package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/sessiond/sessiond/internal/acctload"
)

// Output formats.
const (
	outputText = "text"
	outputJSON = "json"
)

// defaultPort is the port of RADIUS accounting (RFC 2866 section 3).
const defaultPort = "1813"

// defaultConcurrency is one full socket.
const defaultConcurrency = 256

// command holds the content of the command line.
type command struct {
	options acctload.Options
	output  string
	strict  bool
	version bool

	server     string // as written
	secret     string
	secretFile string
	inside     string
	source     string
	nasAddress string
	attributes []string
}

const usage = `acctload puts a RADIUS accounting server under load. It signs every request,
verifies the Response Authenticator of every reply, and reports the rate,
latencies, retransmissions, losses and bad replies.

Usage:
  acctload HOST[:PORT] --secret SECRET [flags]

With --concurrency the loop is closed: that many requests are kept outstanding,
and the server sets the pace. With --rate it is open: requests become due
independently of the server, and latencies count from the due time, so that they
show it when the server stalls.

Scenarios:
  start        new sessions, subscriber by subscriber, round after round
  interim      updates of open sessions
  stop         ends of open sessions; the run ends with the last one
  mix          sessions of random length: a Start, Interims, a Stop (default)
  nas-restart  Accounting-On, a Start of every subscriber, Interims, and again;
               each socket is a NAS of its own
  flood        Starts at --rate; replies are ignored, only sending is counted.
               With a wrong secret or from an unknown --source it is an attack;
               another acctload beside it measures the effect on other clients

Exit codes: 0 done, 1 failed, or with --strict: a request was not answered or a
reply was bad, 2 wrong usage.

Flags:
`

// parse reads the command line. It returns pflag.ErrHelp when help was printed.
func parse(args []string, stdout io.Writer) (*command, error) {
	c := &command{options: acctload.Options{Scenario: acctload.Mix}}
	flags := pflag.NewFlagSet("acctload", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() { fmt.Fprint(stdout, usage+flags.FlagUsages()) }
	c.loadFlags(flags)
	c.requestFlags(flags)
	c.otherFlags(flags)
	if err := flags.Parse(args); err != nil || c.version {
		return c, err
	}
	if flags.NArg() != 1 {
		return nil, errors.New("name one server, HOST or HOST:PORT; see --help")
	}
	c.server = flags.Arg(0)
	if c.options.Rate == 0 && !flags.Changed("concurrency") {
		c.options.Concurrency = defaultConcurrency
	}
	return c, c.complete()
}

func (c *command) loadFlags(flags *pflag.FlagSet) {
	o := &c.options
	flags.Var(&o.Scenario, "scenario", "course of the subscribers' sessions: start, interim, stop, mix, nas-restart or flood")
	flags.IntVar(&o.Concurrency, "concurrency", 0, fmt.Sprintf("closed loop: keep `N` requests outstanding (default %d)", defaultConcurrency))
	flags.Float64Var(&o.Rate, "rate", 0, "open loop: `N` requests per second")
	flags.BoolVar(&o.Even, "even", false, "space the requests of an open loop evenly, not as a Poisson process")
	flags.DurationVar(&o.Duration, "duration", 10*time.Second, "measure for this `time`")
	flags.DurationVar(&o.Warmup, "warmup", time.Second, "send for this `time` before the measurement")
	flags.IntVar(&o.Subscribers, "subscribers", 20_000, "`number` of subscribers")
	flags.StringVar(&c.inside, "inside", "100.64.0.0/10", "`prefix` of the subscribers' addresses")
	flags.Float64Var(&o.Interims, "interims", 1, "mean `number` of Interims of a session in mix")
	flags.DurationVar(&o.RestartEvery, "restart-every", 10*time.Second, "least `time` between restarts of a NAS in nas-restart")
	flags.Uint64Var(&o.Seed, "seed", 1, "seed `number` of the random choices")
}

func (c *command) requestFlags(flags *pflag.FlagSet) {
	o := &c.options
	flags.StringVar(&c.secret, "secret", "", "shared `secret`")
	flags.StringVar(&c.secretFile, "secret-file", "", "`file` with the shared secret; a newline at its end is ignored")
	flags.StringVar(&o.NAS, "nas", "acctload", "`name` of the NAS (NAS-Identifier)")
	flags.StringVar(&c.nasAddress, "nas-address", "", "NAS-IP-Address `address`")
	flags.StringArrayVar(&c.attributes, "attribute", nil, "add an attribute to all requests, `NUMBER=TEXT` or NUMBER=0xHEX; may be repeated")
	flags.BoolVar(&o.MessageAuthenticator, "message-authenticator", false, "add a Message-Authenticator to all requests")
	flags.StringVar(&c.source, "source", "", "`address` to send from")
	flags.IntVar(&o.Sockets, "sockets", 0, "`number` of source ports, each with up to 256 outstanding requests (default: by the load)")
	flags.DurationVar(&o.Timeout, "timeout", 3*time.Second, "retransmit after this `time`")
	flags.IntVar(&o.Transmissions, "transmissions", 3, "send a request at most `N` times, then count it as lost")
	flags.Float64Var(&o.Backoff, "backoff", 1, "multiply the timeout by this `factor` with each transmission")
}

func (c *command) otherFlags(flags *pflag.FlagSet) {
	flags.StringVarP(&c.output, "output", "o", outputText, "report `format`, text or json")
	flags.BoolVar(&c.strict, "strict", false, "exit with 1 if a request was lost or not sent, or a reply was bad")
	flags.BoolVar(&c.version, "version", false, "print the version and exit")
}

// complete fills in the options from the flags' texts.
func (c *command) complete() (err error) {
	if c.output != outputText && c.output != outputJSON {
		return fmt.Errorf("--output must be text or json, not %q", c.output)
	}
	if c.options.Server, err = resolve(c.server); err != nil {
		return err
	}
	if err := c.readSecret(); err != nil {
		return err
	}
	if c.options.Inside, err = netip.ParsePrefix(c.inside); err != nil {
		return fmt.Errorf("--inside: %w", err)
	}
	if c.options.Source, err = optionalAddress("source", c.source); err != nil {
		return err
	}
	if c.options.NASAddress, err = optionalAddress("nas-address", c.nasAddress); err != nil {
		return err
	}
	for _, text := range c.attributes {
		a, err := parseAttribute(text)
		if err != nil {
			return err
		}
		c.options.Attributes = append(c.options.Attributes, a)
	}
	return c.options.Validate()
}

func resolve(server string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port = server, defaultPort
	}
	addr, err := net.ResolveUDPAddr("udp", net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("server: %w", err)
	}
	found := addr.AddrPort()
	return netip.AddrPortFrom(found.Addr().Unmap(), found.Port()), nil
}

func (c *command) readSecret() error {
	if (c.secret == "") == (c.secretFile == "") {
		return errors.New("give either --secret or --secret-file")
	}
	c.options.Secret = []byte(c.secret)
	if c.secretFile == "" {
		return nil
	}
	content, err := os.ReadFile(c.secretFile)
	if err != nil {
		return fmt.Errorf("--secret-file: %w", err)
	}
	c.options.Secret = bytes.TrimRight(content, "\r\n")
	return nil
}

func optionalAddress(flag, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("--%s: %w", flag, err)
	}
	return a, nil
}
