package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes, stable for scripts.
const (
	exitDone        = 0
	exitRefused     = 1 // refused, or not found
	exitUsage       = 2
	exitUnreachable = 3 // the daemon, or of audit verify a part of Redis
	exitNotReady    = 4 // of status only
)

// notReadyError is the daemon's report that it does not answer accounting.
type notReadyError struct{ why string }

func (e notReadyError) Error() string {
	return "sessiond is not ready: " + or(e.why, "no reason given")
}

// unreadError is the daemon's report that it could not read a part of its database.
type unreadError struct{ why, hint string }

func (e unreadError) Error() string { return e.why }

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// args wraps a check of positional arguments so that its error counts as usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := check(c, given); err != nil {
			return usagef("%w; usage: %s", err, c.UseLine())
		}
		return nil
	}
}

// hints give advice by the reason in the daemon's ErrorInfo.
var hints = map[string]string{
	"INVALID_FIELD":     "see --help for what is allowed",
	"NOT_FOUND":         "`sessionctl subscriber list` and `sessionctl binding list` show what there is",
	"NOT_COVERED":       "only what the present bindings tell can be looked up, unless the daemon's configuration has history",
	"NO_HISTORY":        "set history.path in the daemon's configuration to keep one",
	"HISTORY_DOWN":      "the daemon's log says why, and a restart opens it again",
	"NO_GROUP":          "see `sessionctl pool list` for the groups, and `groups` in the daemon's configuration for their inside prefixes",
	"POOL_CONFLICT":     "`sessionctl pool list` shows the pools of all groups, and the daemon's configuration the inside prefixes",
	"LIVE_BINDINGS":     "`sessionctl pool drain` takes no subscriber's NAT; --allow-disruption cuts the bindings now",
	"CONFLICT":          "look at it again, then repeat the command",
	"WATCHER_LAGGED":    "events were lost; start the watch again, with a filter if there is too much to see",
	"LIST_AGAIN":        "`sessionctl subscriber list` shows who is online; then watch without a resume token",
	"READ_ONLY":         "sudo is enough on the machine of the daemon",
	"ROLE_TOO_LOW":      "`grpc.roles` in the daemon's configuration gives the roles",
	"NO_ROLE":           "`grpc.roles` in the daemon's configuration gives the roles",
	"TOKEN_REFUSED":     "--token-file or SESSIOND_TOKEN_FILE names the file of the token",
	"LIMIT_REACHED":     "end what you no longer need, such as other watches; the limits are in the daemon's configuration, under grpc",
	"READER_STALLED":    "start it again, and read it faster: what it is piped to may wait for something",
	"NOT_READY":         "wait a little; `sessionctl status` tells when it is ready",
	"DATABASE_DOWN":     "check Redis; `sessionctl status` shows whether the daemon reaches it",
	"AUDIT_UNAVAILABLE": "the audit trail in Redis cannot be written; the daemon's log, and `redis-cli type` of the key in this message, tell why",
	"DATABASE_FULL":     "raise maxmemory of Redis; subscribers can be ended all the same",
	"STOPPING":          "repeat the command when the daemon runs again",
	"INTERNAL":          "the daemon's log may say more",
}

// report prints the error, if any, and returns the exit code.
func (a *app) report(err error) int {
	if err == nil || errors.Is(err, errEnough) {
		return exitDone
	}
	code, message, hint := a.explain(err)
	fmt.Fprintln(a.stderr, "sessionctl: "+message)
	if hint != "" {
		fmt.Fprintln(a.stderr, "  "+hint)
	}
	return code
}

func (a *app) explain(err error) (code int, message, hint string) {
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage, err.Error(), ""
	}
	var notReady notReadyError
	if errors.As(err, &notReady) {
		return exitNotReady, err.Error(), ""
	}
	var unread unreadError
	if errors.As(err, &unread) {
		return exitUnreachable, err.Error(), unread.hint + "; repeat the command once Redis answers for all"
	}
	var answer interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &answer) {
		return exitRefused, err.Error(), ""
	}
	s := answer.GRPCStatus()
	reason := reasonOf(s)
	switch {
	case reason == "STOPPING":
		code = exitUnreachable
	case s.Code() == codes.InvalidArgument:
		code = exitUsage
	case reason == "" && s.Code() == codes.DeadlineExceeded:
		return exitUnreachable, "no answer from sessiond at " + a.address + " within " + a.timeout.String(),
			"--timeout gives it longer; the command may still be carried out"
	case reason == "" && s.Code() == codes.Unavailable:
		return exitUnreachable, "cannot reach sessiond at " + a.address + ": " + s.Message(),
			"is it running? --addr or " + addressVariable + " says where, --tls-ca that it speaks TLS"
	case s.Code() == codes.Unimplemented:
		return exitRefused, s.Message(), "the daemon is older than this command"
	default:
		code = exitRefused
	}
	hint = hints[reason]
	if reason == "NOT_FOUND" {
		switch noun := resourceOf(s); noun {
		case "nas", "pool":
			hint = "`sessionctl " + noun + " list` shows what there is"
		case "mapping":
			hint = "`sessionctl mapping list` shows the mappings, `sessionctl status` the groups"
		case "group":
			hint = "`sessionctl status` shows the groups"
		}
	}
	return code, s.Message(), hint
}

// resourceOf returns the type of the error's resource; empty if the daemon gave
// none.
func resourceOf(s *status.Status) string {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ResourceInfo); ok {
			return info.GetResourceType()
		}
	}
	return ""
}

// reasonOf returns the reason from the daemon; empty if the error did not come
// from it.
func reasonOf(s *status.Status) string {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "sessiond" {
			return info.GetReason()
		}
	}
	return ""
}
