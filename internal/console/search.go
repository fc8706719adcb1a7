package console

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// sought is the meaning of the text in the search field: one of the three.
type sought struct {
	Address  netip.Addr     // inside or outside
	Endpoint netip.AddrPort // an outside address and port
	User     string         // a User-Name, as text
}

// userPrefix stands before a User-Name that looks like an address.
const userPrefix = "user:"

// seek reads the text of the search field. A text that is no address is a User-Name.
func seek(text string) (s sought, ok bool) {
	text = strings.TrimSpace(text)
	if user, named := strings.CutPrefix(text, userPrefix); named {
		return sought{User: user}, user != ""
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return sought{Address: a}, true
	}
	if p, err := netip.ParseAddrPort(text); err == nil && p.Addr().Is4() {
		return sought{Endpoint: p}, true
	}
	return sought{User: text}, text != ""
}

// foundBody is the binding of an outside port.
type foundBody struct {
	Endpoint netip.AddrPort
	Binding  inspect.Binding
}

// searchPage leads to the page of what was sought.
func (c *Console) searchPage(r *http.Request) (shownPage, error) {
	text := r.FormValue("q")
	s, ok := seek(text)
	switch {
	case !ok:
		return shownPage{}, badInput("Nothing was written. Write a User-Name, an inside address, or an outside address with a port, such as 198.51.100.1:40000.")
	case s.User != "":
		return shownPage{redirect: Path + "subscribers?" + url.Values{"user": {s.User}}.Encode()}, nil
	case s.Endpoint.IsValid():
		b, err := c.Nat.LookupOutside(r.Context(), s.Endpoint.Addr(), nat.Port(s.Endpoint.Port()), time.Time{})
		return shownPage{template: "found.html", Title: "Port " + s.Endpoint.String(), Query: text, Body: foundBody{s.Endpoint, b}}, err
	}
	pools, err := c.Nat.Pools(r.Context())
	if err != nil {
		return shownPage{}, err
	}
	for i := range pools {
		if pools[i].Outside.Contains(s.Address) {
			return shownPage{redirect: Path + "outside/" + s.Address.String()}, nil
		}
	}
	return shownPage{redirect: Path + "subscribers/" + s.Address.String()}, nil
}
