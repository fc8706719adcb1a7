package console

import (
	"net/http"
	"slices"
	"strings"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// removalsBody are the removals that a guard suspends.
type removalsBody struct {
	Groups []heldGroup
	Rows   []removalRow
	Next   subscriber.Key // that the next page continues after; zero at the end
}

// heldGroup counts the suspended removals of a group and reason.
type heldGroup struct {
	Group, Reason   string
	N               int
	Confirm, Refuse string // paths of the pages to decide, "" for none
}

// removalRow is one of them.
type removalRow struct {
	inspect.Removal
	Confirm, Refuse string
}

// removalsPage lists the removals that a guard suspends, for a person to decide.
func (c *Console) removalsPage(r *http.Request) (shownPage, error) {
	after := inspect.RemovalKey{Key: subscriber.Key{Group: r.FormValue("group")}, Kind: inspect.RemovalHeld}
	var err error
	if after.Inside, err = addressIn(r.FormValue("after")); err != nil {
		return shownPage{}, err
	}
	if !after.Inside.IsValid() {
		after = inspect.RemovalKey{}
	}
	s, err := c.Controls.Status(r.Context())
	if err != nil {
		return shownPage{}, err
	}
	list, next, err := c.Removals.Removals(r.Context(), inspect.RemovalFilter{Kind: inspect.RemovalHeld}, after, rowsOnPage)
	if err != nil {
		return shownPage{}, err
	}
	v := visitorOf(r)
	links := decisionLinks(v.session != nil && v.may(pb.RemovalService_ConfirmRemovals_FullMethodName))
	b := removalsBody{Groups: heldGroups(s.Groups, links), Next: next.Key}
	for _, removal := range list {
		row := removalRow{Removal: removal}
		row.Confirm, row.Refuse = links("group", removal.Record.Group, "inside", removal.Record.Inside.String())
		b.Rows = append(b.Rows, row)
	}
	return shownPage{template: "removals.html", Title: "Held removals", Section: "removals", Body: b}, nil
}

// decisionLinks returns a function that makes the paths of the pages to decide about removals, for
// those who may.
func decisionLinks(allowed bool) func(fields ...string) (confirm, refuse string) {
	return func(fields ...string) (confirm, refuse string) {
		if !allowed {
			return "", ""
		}
		return changePath("removals/confirm", fields...), changePath("removals/refuse", fields...)
	}
}

func heldGroups(groups []inspect.GroupStatus, links func(...string) (string, string)) []heldGroup {
	var list []heldGroup
	for i := range groups {
		for reason, n := range groups[i].RemovalsHeld {
			if n == 0 {
				continue
			}
			h := heldGroup{Group: groups[i].Name, Reason: reason.String(), N: n}
			h.Confirm, h.Refuse = links("group", h.Group, "cause", h.Reason)
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b heldGroup) int {
		return strings.Compare(a.Group+"\x00"+a.Reason, b.Group+"\x00"+b.Reason)
	})
	return list
}
