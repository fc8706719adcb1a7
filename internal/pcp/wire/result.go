package wire

import (
	"fmt"
	"time"
)

// Result is a result code of PCP (RFC 6887 section 7.4). Every other one than Success is an error.
type Result uint8

// The result codes.
const (
	Success Result = iota
	UnsuppVersion
	NotAuthorized
	MalformedRequest
	UnsuppOpcode
	UnsuppOption
	MalformedOption
	NetworkFailure
	NoResources
	UnsuppProtocol
	UserExQuota
	CannotProvideExternal
	AddressMismatch
	ExcessiveRemotePeers
	results // their number
)

var resultNames = [results]string{
	"success", "unsupp_version", "not_authorized", "malformed_request", "unsupp_opcode", "unsupp_option", "malformed_option",
	"network_failure", "no_resources", "unsupp_protocol", "user_ex_quota", "cannot_provide_external", "address_mismatch", "excessive_remote_peers",
}

// String returns the code's name in metrics.
func (r Result) String() string {
	if r < results {
		return resultNames[r]
	}
	return fmt.Sprintf("result_%d", uint8(r))
}

// Error implements error.
func (r Result) Error() string { return "pcp: " + r.String() }

// Results returns all result codes.
func Results() []Result {
	all := make([]Result, results)
	for i := range all {
		all[i] = Result(i)
	}
	return all
}

// How long a client should expect the same error again (RFC 6887 section 7.4).
const (
	shortError = 30 * time.Second
	longError  = 30 * time.Minute
)

// Lifetime returns how long a client should expect the same error again. CANNOT_PROVIDE_EXTERNAL
// is short: a port that somebody has may be free soon.
func (r Result) Lifetime() time.Duration {
	switch r {
	case Success:
		return 0
	case NetworkFailure, NoResources, UserExQuota, CannotProvideExternal:
		return shortError
	}
	return longError
}
