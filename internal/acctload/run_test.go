package acctload_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/acctload"
)

const (
	start   = rfc2866.AcctStatusType_Value_Start
	interim = rfc2866.AcctStatusType_Value_InterimUpdate
	stop    = rfc2866.AcctStatusType_Value_Stop
	on      = rfc2866.AcctStatusType_Value_AccountingOn
)

// options of a short closed loop, which even a slow machine completes.
func options(r *responder, scenario acctload.Scenario) acctload.Options {
	return acctload.Options{
		Server: r.address(), Secret: secret, NAS: "bng", Scenario: scenario,
		Inside: netip.MustParsePrefix("100.64.0.0/16"), Subscribers: 200, Interims: 2,
		Concurrency: 32, Sockets: 2, Duration: 300 * time.Millisecond,
		Timeout: 5 * time.Second,
	}
}

func run(t *testing.T, o acctload.Options) *acctload.Result {
	t.Helper()
	result, err := acctload.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestScenarios replays the received requests and checks that each belongs to a
// session online at its address.
func TestScenarios(t *testing.T) {
	for scenario := range kindsOf {
		t.Run(string(scenario), func(t *testing.T) {
			t.Parallel()
			r := respond(t, always)
			o := options(r, scenario)
			o.RestartEvery = 50 * time.Millisecond
			result := run(t, o)
			if !result.Clean() || result.Rate <= 0 || result.Latency.Count() != result.Answered {
				t.Errorf("result is %+v", result)
			}
			counts := replay(t, r.requests())
			for _, want := range kindsOf[scenario] {
				if counts[want] == 0 {
					t.Errorf("no request of kind %v", want)
				}
			}
			if scenario == acctload.Stop && counts[stop] != 200 {
				t.Errorf("%d Stops, want one for each of 200", counts[stop])
			}
		})
	}
}

var kindsOf = map[acctload.Scenario][]rfc2866.AcctStatusType{
	acctload.Start:      {start},
	acctload.Interim:    {start, interim},
	acctload.Stop:       {start, stop},
	acctload.Mix:        {start, interim, stop},
	acctload.NASRestart: {start, on},
}

// TestWarmupIsNotCounted: neither requests nor replies of the time before the measurement
// are counted. At its begin and end there are at most as many outstanding as are kept so.
func TestWarmupIsNotCounted(t *testing.T) {
	t.Parallel()
	r := respond(t, always)
	o := options(r, acctload.Mix)
	o.Warmup = o.Duration
	result := run(t, o)
	if more := int(result.Replies) - int(result.Requests); result.Replies == 0 || max(more, -more) > o.Concurrency {
		t.Errorf("%d requests and %d replies", result.Requests, result.Replies)
	}
}

// TestFlood sends to a server that answers nothing, and to a closed port.
func TestFlood(t *testing.T) {
	for _, there := range []bool{true, false} {
		r := respond(t, func(seen, []byte) [][]byte { return nil })
		o := options(r, acctload.Flood)
		o.Concurrency, o.Rate, o.Even, o.Duration, o.Sockets = 0, 5000, true, 500*time.Millisecond, 0
		if !there {
			o.Server = closedPort(t)
		}
		result := run(t, o)
		if result.Requests != 2500 || result.Retransmissions > 0 || result.Lost > 0 || result.Unsent > 0 {
			t.Errorf("there %v: %d requests, %d unsent, %d lost", there, result.Requests, result.Unsent, result.Lost)
		}
		if there && replay(t, r.requests())[start] == 0 {
			t.Error("nothing came")
		}
	}
}

func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func replay(t *testing.T, requests []seen) map[rfc2866.AcctStatusType]int {
	t.Helper()
	counts := make(map[rfc2866.AcctStatusType]int)
	live := make(map[string]seen) // by address
	for _, s := range requests {
		counts[s.kind]++
		switch s.kind {
		case start:
			live[s.address] = s
		case on:
			for address, other := range live {
				if other.nas == s.nas {
					delete(live, address)
				}
			}
		default:
			if open := live[s.address]; open.session != s.session || open.user != s.user {
				t.Fatalf("%+v does not belong to %+v", s, open)
			}
		}
		if s.kind == stop {
			delete(live, s.address)
		}
	}
	return counts
}

func TestOpenLoopKeepsItsRate(t *testing.T) {
	for _, even := range []bool{true, false} {
		r := respond(t, always)
		o := options(r, acctload.Mix)
		o.Concurrency, o.Rate, o.Even, o.Duration = 0, 2000, even, time.Second
		result := run(t, o)
		if n := result.Requests + result.Unsent; n < 1700 || n > 2300 {
			t.Errorf("even %v: %d requests were due in a second, want about 2000", even, n)
		}
		if result.Lost > 0 || result.Bad.Total() > 0 {
			t.Errorf("result is %+v", result)
		}
	}
}

// TestStallShowsInOpenLoop stops the server once: the latency of every request
// that became due meanwhile must show it, although most were sent only
// afterwards.
func TestStallShowsInOpenLoop(t *testing.T) {
	const stall = 300 * time.Millisecond
	requests := 0
	r := respond(t, func(_ seen, reply []byte) [][]byte {
		if requests++; requests == 200 {
			<-time.After(stall) // the subject of the test is a late server
		}
		return [][]byte{reply}
	})
	o := options(r, acctload.Start)
	o.Concurrency, o.Rate, o.Even, o.Sockets, o.Duration = 0, 2000, true, 1, time.Second
	result := run(t, o)
	if got := result.Latency.Quantile(0.8); got < stall/10 {
		t.Errorf("p80 is %v though the server stalled for 30 %% of the time", got)
	}
	if result.Latency.Max() < stall {
		t.Errorf("max is %v", result.Latency.Max())
	}
}

func TestLossIsRepairedAndCounted(t *testing.T) {
	r := respond(t, func(s seen, reply []byte) [][]byte {
		if !s.again {
			return nil // the first transmission is lost
		}
		return [][]byte{reply}
	})
	o := options(r, acctload.Start)
	o.Timeout, o.Transmissions, o.Backoff = 20*time.Millisecond, 100, 1.01
	result := run(t, o)
	if !result.Clean() || result.Retransmissions < result.Answered {
		t.Errorf("result is %+v", result)
	}
	if result.Latency.Quantile(0) < o.Timeout {
		t.Errorf("a request was answered after %v, before its retransmission", result.Latency.Quantile(0))
	}
}

func TestLossIsReported(t *testing.T) {
	requests := 0
	r := respond(t, func(_ seen, reply []byte) [][]byte {
		if requests++; requests > 100 {
			return nil
		}
		return [][]byte{reply}
	})
	o := options(r, acctload.Start)
	o.Timeout, o.Transmissions = 200*time.Millisecond, 2 // longer than pauses of a busy machine
	result := run(t, o)
	if result.Clean() || result.Lost == 0 || result.Answered+result.Lost != result.Requests {
		t.Errorf("result is %+v", result)
	}
	if result.Retransmissions < result.Lost {
		t.Errorf("%d lost after %d retransmissions", result.Lost, result.Retransmissions)
	}
}

func TestBadRepliesAreCountedAndIgnored(t *testing.T) {
	r := respond(t, func(_ seen, reply []byte) [][]byte {
		forged := bytes.Clone(reply)
		forged[10] ^= 1
		reject := bytes.Clone(reply)
		reject[0] = 3
		return [][]byte{forged, reject, {5, 1}, reply, reply}
	})
	result := run(t, options(r, acctload.Start))
	if result.Clean() || result.Lost != 0 {
		t.Errorf("result is %+v", result)
	}
	b := result.Bad
	if b.Authenticator < result.Answered || b.Code < result.Answered || b.Malformed < result.Answered {
		t.Errorf("bad replies to %d requests: %+v", result.Answered, b)
	}
	if result.Late == 0 {
		t.Error("second replies were not counted")
	}
}

func TestSilentServer(t *testing.T) {
	silent := respond(t, func(seen, []byte) [][]byte { return nil })
	closed := options(silent, acctload.Mix)
	closed.Timeout, closed.Transmissions = 10*time.Millisecond, 2
	if _, err := acctload.Run(context.Background(), closed); !errors.Is(err, acctload.ErrSilent) {
		t.Errorf("err is %v, want ErrSilent", err)
	}
	closed.Server = netip.MustParseAddrPort("127.0.0.1:9") // a closed port
	if _, err := acctload.Run(context.Background(), closed); !errors.Is(err, acctload.ErrSilent) {
		t.Errorf("err is %v, want ErrSilent", err)
	}
}

func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r := respond(t, func(_ seen, reply []byte) [][]byte {
		cancel()
		return [][]byte{reply}
	})
	o := options(r, acctload.Start)
	o.Duration = time.Hour
	if _, err := acctload.Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("err is %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := acctload.Options{
		Server: netip.MustParseAddrPort("192.0.2.1:1813"), Secret: secret, NAS: "bng", Scenario: acctload.Mix,
		Inside: netip.MustParsePrefix("100.64.0.0/16"), Concurrency: 1000,
	}
	if err := good.Validate(); err != nil || good.Sockets != 4 {
		t.Fatalf("err is %v, sockets are %d", err, good.Sockets)
	}
	for name, spoil := range map[string]func(*acctload.Options){
		"server":      func(o *acctload.Options) { o.Server = netip.AddrPort{} },
		"source":      func(o *acctload.Options) { o.Source = netip.MustParseAddr("2001:db8::1") },
		"secret":      func(o *acctload.Options) { o.Secret = nil },
		"nas":         func(o *acctload.Options) { o.NAS = "" },
		"nas address": func(o *acctload.Options) { o.NASAddress = netip.MustParseAddr("::1") },
		"attribute":   func(o *acctload.Options) { o.Attributes = []acctload.Attribute{{Type: 1}} },
		"attributes":  func(o *acctload.Options) { o.Attributes = make20(250) },
		"scenario":    func(o *acctload.Options) { o.Scenario = "storm" },
		"inside":      func(o *acctload.Options) { o.Inside = netip.MustParsePrefix("2001:db8::/64") },
		"subscribers": func(o *acctload.Options) { o.Subscribers = 1 << 17 },
		"few":         func(o *acctload.Options) { o.Subscribers = 999 },
		"both loops":  func(o *acctload.Options) { o.Rate = 1 },
		"no loop":     func(o *acctload.Options) { o.Concurrency = 0 },
		"sockets":     func(o *acctload.Options) { o.Sockets = 1 },
		"warm-up":     func(o *acctload.Options) { o.Warmup = -1 },
		"backoff":     func(o *acctload.Options) { o.Backoff = 0.5 },
		"interims":    func(o *acctload.Options) { o.Interims = -1 },
	} {
		bad := good
		spoil(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func make20(length int) []acctload.Attribute {
	all := make([]acctload.Attribute, 20)
	for i := range all {
		all[i] = acctload.Attribute{Type: 26, Value: make([]byte, length)}
	}
	return all
}
