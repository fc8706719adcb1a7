package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

// orderFlags are the flags of every command that changes something.
type orderFlags struct {
	reason, requestID string
	validateOnly      bool
}

// register adds the flags. A command whose --reason selects removals has --audit-reason.
func (f *orderFlags) register(c *cobra.Command) {
	name, flags := "reason", c.Flags()
	if flags.Lookup(name) != nil {
		name = "audit-reason"
	}
	flags.StringVar(&f.reason, name, "", "why, in a few `words`, for the audit trail")
	flags.StringVar(&f.requestID, "request-id", "", "a `name` for this change: the same command with the same name changes nothing twice")
	flags.BoolVar(&f.validateOnly, "validate-only", false, "change nothing; say what would be changed")
	complete(c, name)
	complete(c, "request-id")
}

// tried prints the answer to a command with --validate-only.
func (a *app) tried(answer proto.Message, format string, args ...any) error {
	return a.answer(answer, "nothing was changed; it would "+fmt.Sprintf(format, args...))
}
