package console

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// maxForm bounds the octets of a form.
const maxForm = 16 << 10

// admitted refuses requests that another site makes a browser send, finds out who sends the others,
// and sets the headers of every answer.
func (c *Console) admitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header())
		if code, why := c.refusal(r); code != 0 {
			http.Error(w, why, code)
			return
		}
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if err := r.ParseForm(); err != nil {
				http.Error(w, "this is no form of the console", http.StatusBadRequest)
				return
			}
		}
		next.ServeHTTP(w, withVisitor(r, c.recognize(r, byPerson(r))))
	})
}

// contentPolicy lets pages load what this server has, and nothing that is written into them.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Referrer-Policy", "same-origin") // a path names a subscriber; with no-referrer forms would have no Origin
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cache-Control", "no-store")
}

// refusal returns why a request is not served, and the status code; 0 for one that is.
func (c *Console) refusal(r *http.Request) (code int, why string) {
	switch host := hostName(r.Host); {
	case !c.knownHost(host, r):
		// A page of that name could lead here by its DNS server, and read this server as its own.
		return http.StatusMisdirectedRequest, fmt.Sprintf("sessiond does not know the host name %.100q as its own; call it by its address, or add the name to http.hosts in its configuration", host)
	case !sameSite(r), r.Method != http.MethodGet && r.Method != http.MethodHead && !ownForm(r):
		return http.StatusForbidden, "another site sent this request; open the console itself"
	}
	return 0, ""
}

// hostName returns the name or address of a Host, without port, brackets and the dot at its end.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// knownHost reports whether a request may have come by this name: of loopback, the address that its
// connection came to, or a configured one.
func (c *Console) knownHost(host string, r *http.Request) bool {
	if host == "localhost" || slices.Contains(c.Hosts, host) {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if a.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap().WithZone("") == a.Unmap().WithZone("")
}

// sameSite reports whether a page of this server sent the request, or a person: by typing, or by
// following a link to a page.
func sameSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// ownForm reports whether a page of this server sent the request: the browser says so. One that says
// neither is no browser.
func ownForm(r *http.Request) bool {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	switch {
	case origin == "https://"+r.Host, origin == "http://"+r.Host && r.TLS == nil: // of TLS that a proxy ends here, too
		return site == "" || site == "same-origin"
	}
	return origin == "" && site == "same-origin"
}
