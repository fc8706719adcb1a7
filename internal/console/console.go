package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/quota"
	"github.com/sessiond/sessiond/internal/signin"
	"github.com/sessiond/sessiond/internal/throttle"
)

// Path is the path below which all pages are.
const Path = "/console/"

// Options of a Console.
type Options struct {
	Subscribers Subscribers  // required
	Nat         Nat          // required
	Sessions    Sessions     // required
	Controls    Controls     // required
	Removals    Removals     // required
	Machine     Machine      // required
	Tokens      Tokens       // required
	Logger      *slog.Logger // required

	// Calls are those of the API, for the actor in their context: required.
	Calls grpc.ClientConnInterface

	// Anonymous is the role of visitors who have not signed in: access.Viewer, or access.None, the
	// default. They change nothing in any case.
	Anonymous access.Role

	// Hosts are names under which browsers may call, beside those of loopback and the address that
	// a connection came to. Optional.
	Hosts []string

	Now func() time.Time // optional, time.Now
}

// A Console serves the pages. Its methods may be called concurrently.
type Console struct {
	Options
	templates pageTemplates
	assets    map[string]embeddedFile
	history   totalsHistory
	streams   *quota.Quota
	facts     factsMessage
	failures  throttle.Throttle
	refusals  throttle.Throttle // log lines about attempts to sign in
	calls     changeCalls
	sessions  signin.Store
	attempts  signin.Attempts
}

// Limits of event streams. They are below those of connections, so that pages and scrapes have some.
const (
	maxStreams        = 64
	maxStreamsPerPeer = 16
)

// New returns a Console.
func New(o Options) (*Console, error) {
	for name, missing := range map[string]bool{
		"Subscribers": o.Subscribers == nil, "Nat": o.Nat == nil, "Sessions": o.Sessions == nil, "Controls": o.Controls == nil,
		"Removals": o.Removals == nil, "Machine": o.Machine == nil, "Tokens": o.Tokens == nil, "Logger": o.Logger == nil,
		"Calls": o.Calls == nil,
	} {
		if missing {
			return nil, fmt.Errorf("console: Options.%s is missing", name)
		}
	}
	if o.Anonymous > access.Viewer {
		return nil, fmt.Errorf("console: Options.Anonymous is %s, and who has not signed in changes nothing; make it viewer or none", o.Anonymous)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Hosts = slices.Clone(o.Hosts)
	for i, h := range o.Hosts {
		o.Hosts[i] = strings.ToLower(h)
	}
	c := &Console{Options: o, streams: quota.New(maxStreams, maxStreamsPerPeer), calls: callsOver(o.Calls)}
	var err error
	if c.templates, err = parseTemplates(o.Now); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	if c.assets, err = readAssets(); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return c, nil
}

// Handler serves all that is below Path.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, page := range map[string]pageFunc{
		"{$}":                   c.overviewPage,
		"outside":               c.prefixesPage,
		"outside/{address}":     c.outsidePage,
		"subscribers":           c.subscribersPage,
		"subscribers/{address}": c.customerPage,
		"search":                c.searchPage,
		"events":                c.eventsPage,
		"removals":              c.removalsPage,
		"settings":              c.settingsPage,
	} {
		mux.Handle("GET "+Path+pattern, c.serve(reading(page)))
	}
	for _, ch := range c.offeredChanges() {
		mux.Handle("GET "+Path+ch.path, c.serve(c.previewPage(ch)))
		mux.Handle("POST "+Path+ch.path, c.answer(c.orderPage(ch)))
	}
	mux.Handle("GET "+Path+"done/{request}", c.serve(c.donePage))
	mux.Handle("GET "+Path+"signin", c.serve(c.signInFormPage))
	mux.Handle("POST "+Path+"signin", c.answer(c.signIn))
	mux.Handle("POST "+signOutPurpose, c.answer(c.signOut))
	mux.HandleFunc("GET "+Path+"live", c.serveLive)
	mux.HandleFunc("GET "+Path+"assets/{name}", c.serveAsset)
	mux.Handle(Path, c.serve(func(*http.Request) (shownPage, error) { return shownPage{}, errNoPage }))
	return c.admitted(mux)
}

// errNoPage: the path leads to no page.
var errNoPage = errors.New("there is no such page")

// sampleEvery is the interval of the samples of Totals.
const sampleEvery = 5 * time.Second

// Run takes samples of the counts until ctx ends.
func (c *Console) Run(ctx context.Context) error {
	for {
		c.history.add(c.Now(), c.Machine.Totals())
		if err := clock.Sleep(ctx, sampleEvery); err != nil {
			return err
		}
	}
}
