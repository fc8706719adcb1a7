package radiusacct_test

import (
	"slices"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
)

// foretold reports whether a pair of labels is in Outcomes. The observer of every test
// checks all its counts.
func foretold(client, kind, result string) bool {
	pair := radiusacct.Outcome{Kind: kind, Result: result}
	if client == "" {
		return slices.Contains(radiusacct.StrangerOutcomes(), pair)
	}
	return slices.Contains(radiusacct.Outcomes(), pair)
}

func closingForetold(cause string) bool { return slices.Contains(radsec.ClosingCauses(), cause) }

func refusalForetold(client, cause string) bool {
	if client != "" {
		return cause == radsec.RefusedLimit
	}
	return slices.Contains(radsec.RefusalCauses(), cause)
}
