package console

import (
	"net/http"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/rawtext"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// subscribersBody is a page of online subscribers.
type subscribersBody struct {
	User string // whose addresses are listed, as text; "" for all
	Rows []inspect.Subscriber
	Next subscriber.Key // that the next page continues after; zero at the end
}

// rowsOnPage is the most rows of a list.
const rowsOnPage = 100

// subscribersPage lists online subscribers, all or those of one User-Name.
func (c *Console) subscribersPage(r *http.Request) (shownPage, error) {
	user := r.FormValue("user")
	after := subscriber.Key{Group: r.FormValue("group")}
	var err error
	if after.Inside, err = addressIn(r.FormValue("after")); err != nil {
		return shownPage{}, err
	}
	rows, next, err := c.Subscribers.Subscribers(r.Context(), inspect.SubscriberFilter{UserName: rawtext.Octets(user)}, after, rowsOnPage)
	if err != nil {
		return shownPage{}, err
	}
	b := subscribersBody{User: user, Rows: rows, Next: next}
	return shownPage{template: "subscribers.html", Title: "Subscribers", Section: "subscribers", Query: user, Body: b}, nil
}
