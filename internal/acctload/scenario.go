package acctload

import (
	"fmt"
	"strings"
)

// A Scenario is the course of the subscribers' sessions during a run.
type Scenario string

const (
	// Start opens new sessions, subscriber by subscriber; the next round takes over
	// the addresses.
	Start Scenario = "start"
	// Interim updates open sessions in turn.
	Interim Scenario = "interim"
	// Stop ends open sessions in turn, and the run with the last of them.
	Stop Scenario = "stop"
	// Mix lets subscribers come and go at random: each session is one Start, a
	// random number of Interims and one Stop.
	Mix Scenario = "mix"
	// NASRestart repeats an Accounting-On, a Start of every subscriber and
	// Interims. Every socket is a NAS of its own, so that one lane holds all
	// subscribers that a restart ends.
	NASRestart Scenario = "nas-restart"
	// Flood sends Starts at a rate and ignores replies. With a wrong secret or an
	// unknown source it is an attack, else a storm. Another run beside it measures
	// the effect on others.
	Flood Scenario = "flood"
)

// Scenarios lists all of them.
var Scenarios = []Scenario{Start, Interim, Stop, Mix, NASRestart, Flood}

// Set implements pflag.Value.
func (s *Scenario) Set(text string) error {
	for _, known := range Scenarios {
		if text == string(known) {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", scenarioNames())
}

// String implements pflag.Value.
func (s *Scenario) String() string { return string(*s) }

// Type implements pflag.Value.
func (s *Scenario) Type() string { return "scenario" }

func scenarioNames() string {
	names := make([]string, len(Scenarios))
	for i, s := range Scenarios {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

// A Kind is the Acct-Status-Type of a request.
type Kind uint8

// Kinds of requests, by the numbers of RFC 2866 section 5.1.
const (
	KindStart        Kind = 1
	KindStop         Kind = 2
	KindInterim      Kind = 3
	KindAccountingOn Kind = 7
)

const kinds = 8

// String is the kind's name in reports.
func (k Kind) String() string {
	switch k {
	case KindStart:
		return "start"
	case KindStop:
		return "stop"
	case KindInterim:
		return "interim"
	case KindAccountingOn:
		return "accounting-on"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}
