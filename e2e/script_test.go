//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// A scenario is one run of a script, with what its commands remember.
type scenario struct {
	*stack
	ts       *testscript.TestScript
	began    time.Time
	sessions map[string]string  // Acct-Session-Id of who is online, by User-Name
	blocks   map[string]binding // the last binding that was seen ACTIVE, by User-Name
	flows    map[string]*flow   // by name
	streams  map[string]*stream // by the name of the flow
	capture  *capture
	begun    map[string]chan error // commands of `begin`, by name
	mu       sync.Mutex            // sessions, blocks: also used by commands of `begin`
}

// commands are the words of the scripts.
var commands = map[string]func(s *scenario, args []string) error{
	"online":       (*scenario).online,
	"report":       (*scenario).report,
	"state":        (*scenario).state,
	"same-block":   (*scenario).sameBlock,
	"gone":         (*scenario).gone,
	"free":         (*scenario).free,
	"record":       (*scenario).record,
	"redis":        (*scenario).redis,
	"sessionctl":   (*scenario).sessionctl,
	"translated":   (*scenario).translated,
	"offline":      (*scenario).offline,
	"flow":         (*scenario).flow,
	"alive":        (*scenario).alive,
	"dead":         (*scenario).dead,
	"close":        (*scenario).closeFlow,
	"stream":       (*scenario).stream,
	"unbroken":     (*scenario).unbroken,
	"no-new-flows": (*scenario).noNewFlows,
	"no-leak":      (*scenario).noLeak,
	"container":    (*scenario).container,
	"replace":      (*scenario).replace,
	"wipe":         (*scenario).wipe,
	"disconnect":   (*scenario).disconnect,
	"connect":      (*scenario).connect,
	"healthy":      (*scenario).healthy,
	"unhealthy":    (*scenario).unhealthy,
	"configure":    (*scenario).configure,
	"logged":       (*scenario).logged,
	"metric":       (*scenario).metric,
}

// TestScenarios runs the scripts, one after the other: they have one lab.
func TestScenarios(t *testing.T) {
	s := newStack(t)
	params := testscript.Params{
		Dir:             "scenarios",
		ContinueOnError: false,
		Setup: func(env *testscript.Env) error {
			for name, h := range s.subscribers {
				env.Setenv(name, h.inside.String())
			}
			env.Setenv("REDIS_PATH1", "10.91."+s.slot+".20")
			env.Setenv("BNG_PATH1", "10.91."+s.slot+".10")
			env.Values[scenarioKey{}] = &scenario{
				stack: s, began: time.Now(),
				sessions: map[string]string{}, blocks: map[string]binding{}, flows: map[string]*flow{},
				streams: map[string]*stream{}, begun: map[string]chan error{},
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"begin": func(ts *testscript.TestScript, neg bool, args []string) { of(ts).begin(neg, args) },
			"await": func(ts *testscript.TestScript, neg bool, args []string) { of(ts).await(neg, args) },
		},
	}
	for name, do := range commands {
		params.Cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			judge(ts, name, neg, do(of(ts), args))
		}
	}
	testscript.Run(t, params)
}

// scenarioKey is the key of the scenario among the values of a script.
type scenarioKey struct{}

// of returns the scenario of a script. The first call arranges that its subscribers are
// taken offline at its end, whatever happens.
func of(ts *testscript.TestScript) *scenario {
	s := ts.Value(scenarioKey{}).(*scenario)
	if s.ts == nil {
		s.ts = ts
		s.capture = s.startCapture(ts)
		ts.Defer(s.clean)
	}
	return s
}

// judge ends the script if a command failed that was to succeed, or the reverse.
func judge(ts *testscript.TestScript, name string, neg bool, err error) {
	var misuse usageError
	switch {
	case errors.As(err, &misuse):
		ts.Fatalf("%s: %v", name, err)
	case err != nil && neg:
		ts.Logf("%v", err)
	case err != nil:
		ts.Fatalf("%v", err)
	case neg:
		ts.Fatalf("%s succeeded; it was to fail", name)
	}
}

// A usageError is a mistake in a script.
type usageError string

func (e usageError) Error() string { return "usage: " + string(e) }

// begin runs a command beside those that follow, until `await` with its name.
func (s *scenario) begin(neg bool, args []string) {
	if neg || len(args) < 1 || commands[args[0]] == nil || s.begun[args[0]] != nil {
		s.ts.Fatalf("usage: begin COMMAND [ARGUMENT ...], once until it is awaited")
	}
	done := make(chan error, 1)
	s.begun[args[0]] = done
	go func() { done <- commands[args[0]](s, args[1:]) }()
}

// await waits for the end of a command that `begin` runs.
func (s *scenario) await(neg bool, args []string) {
	if len(args) != 1 || s.begun[args[0]] == nil {
		s.ts.Fatalf("usage: await COMMAND, which `begin` runs")
	}
	done := s.begun[args[0]]
	delete(s.begun, args[0])
	judge(s.ts, args[0], neg, <-done)
}

// clean takes everybody offline, so that the next script begins as this one did.
func (s *scenario) clean() {
	for _, done := range s.begun {
		<-done
	}
	for _, st := range s.streams {
		_ = st.stop()
	}
	for _, f := range s.flows {
		_ = f.end()
	}
	errs := []error{s.capture.Close()}
	_, err := ctl("settings", "set", "subscriber_session_removal=on")
	errs = append(errs, err)
	for user := range s.sessions {
		errs = append(errs, s.report([]string{"stop", user}))
	}
	for user := range s.subscribers {
		errs = append(errs, s.free([]string{user}))
	}
	if err := errors.Join(errs...); err != nil {
		s.ts.Logf("clean up: %v", err) // a script that passed leaves everything in order: the next one finds out
	}
}

// usage returns an error unless there are as many arguments as the text names.
func usage(args []string, text string, counts ...int) error {
	if !slices.Contains(counts, len(args)) {
		return usageError(text)
	}
	return nil
}

// within returns the duration that an optional argument gives.
func within(args []string, i int, usual time.Duration) (time.Duration, error) {
	if len(args) <= i {
		return usual, nil
	}
	d, err := time.ParseDuration(args[i])
	if err != nil {
		return 0, usageError(fmt.Sprintf("%q is no duration", args[i]))
	}
	return d, nil
}

// eventually calls try until it returns nil, for at most the given time.
func eventually(within time.Duration, try func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", within, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
