package console

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/peercred"
	"github.com/sessiond/sessiond/internal/quota"
	"github.com/sessiond/sessiond/internal/signin"
)

// Names of the cookie with the identifier of a session. The prefix binds it to this host and to
// TLS (RFC 6265bis section 4.1.3.2).
const (
	cookieOverTLS = "__Host-sessiond"
	cookieInPlain = "sessiond"
)

// visitor is who sent a request.
type visitor struct {
	access.Actor
	session *signin.Session // nil for who has not signed in
	id      string          // of the session
	private bool            // nobody else can read the connection, so that a token may come over it
}

type visitorKey struct{}

// visitorOf returns who sent a request that was admitted.
func visitorOf(r *http.Request) visitor {
	v, _ := r.Context().Value(visitorKey{}).(visitor)
	return v
}

// withVisitor returns the request with its visitor in the context, who is the actor of its calls.
func withVisitor(r *http.Request, v visitor) *http.Request {
	return r.WithContext(access.With(context.WithValue(r.Context(), visitorKey{}, v), v.Actor))
}

// may reports whether the visitor may call a method.
func (v *visitor) may(method string) bool { return access.Authorize(v.Actor, method, nil) == nil }

// recognize finds out who sends a request: the holder of a token, whose session it is, or else
// somebody who may read here or not. The session counts as used where a person asks.
func (c *Console) recognize(r *http.Request, used bool) visitor {
	v := visitor{Actor: access.Actor{Name: "anonymous", Role: c.Anonymous, Source: r.RemoteAddr}, private: isPrivate(r)}
	if !v.private {
		return v
	}
	for _, cookie := range r.CookiesNamed(cookieName(r)) {
		session := c.sessions.Find(cookie.Value, c.Now(), used)
		if session == nil || !sameUser(session.User, r) {
			continue
		}
		actor, err := c.Tokens.TokenActor(session.Token, callerOf(r))
		if err != nil || actor.Name != session.Name || actor.Role != session.Role { // withdrawn, or with other rights
			c.sessions.End(cookie.Value)
			continue
		}
		v.Actor, v.session, v.id = actor, session, cookie.Value
		return v
	}
	return v
}

// stillSignedIn reports whether a visitor is who it was when its request came.
func (c *Console) stillSignedIn(r *http.Request, v visitor) bool {
	if v.session == nil {
		return true
	}
	now := c.recognize(r, false)
	return now.session == v.session
}

// callerOf describes the other end of a request, for the check of its token.
func callerOf(r *http.Request) *access.Caller {
	return &access.Caller{Way: access.Open, Source: r.RemoteAddr, Private: isPrivate(r)}
}

// isPrivate reports whether nobody else can read a connection: it has TLS, or stays on this
// machine. Headers of proxies are not believed.
func isPrivate(r *http.Request) bool {
	remote, local := endsOf(r)
	return r.TLS != nil || remote.Addr().Unmap().IsLoopback() && local.Addr().Unmap().IsLoopback()
}

// endsOf returns the addresses of a connection: of the browser, and of this server.
func endsOf(r *http.Request) (remote, local netip.AddrPort) {
	remote, _ = netip.ParseAddrPort(r.RemoteAddr) // one that is none has no rights
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		local = a.AddrPort()
	}
	return remote, local
}

// localUser returns the user of this machine who sends a request over loopback, nil for others
// and where the kernel does not tell.
func localUser(r *http.Request) *uint32 {
	remote, local := endsOf(r)
	if !remote.Addr().Unmap().IsLoopback() {
		return nil
	}
	user, err := peercred.TCPBetween(remote, local)
	if err != nil {
		return nil
	}
	return &user
}

// sameUser reports whether a request comes from the user who signed in. A browser sends the cookies
// of a host to all its ports, so that another user's server on loopback can get to know them.
func sameUser(user *uint32, r *http.Request) bool {
	if user == nil {
		return true
	}
	now := localUser(r)
	return now != nil && *now == *user
}

// sourceOf names the source of a request, whose attempts to sign in are counted together.
func sourceOf(r *http.Request) string {
	if user := localUser(r); user != nil {
		return fmt.Sprintf("user %d", *user)
	}
	return peerOf(r)
}

// peerOf returns the peer of a request, for limits.
func peerOf(r *http.Request) string {
	if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return quota.PeerOf(net.TCPAddrFromAddrPort(remote))
	}
	return r.RemoteAddr
}

// byPerson reports whether a person asks for a page, rather than the script that keeps it current. Where
// the browser does not say, no path of the script and of the parts of a page counts.
func byPerson(r *http.Request) bool {
	if r.URL.Path == Path+"live" || strings.HasPrefix(r.URL.Path, Path+"assets/") {
		return false
	}
	kind := r.Header.Get("Sec-Fetch-Dest")
	return kind == "" || kind == "document"
}

func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return cookieOverTLS
	}
	return cookieInPlain
}

// cookieOf returns the cookie of a session; with an empty id one that takes it away.
func cookieOf(r *http.Request, id string) *http.Cookie {
	cookie := &http.Cookie{Name: cookieName(r), Value: id, Path: Path, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if r.TLS != nil {
		cookie.Secure, cookie.Path = true, "/" // as the prefix asks for
	}
	if id == "" {
		cookie.MaxAge = -1
	}
	return cookie
}

// Errors of requests that their sender may not make.
var (
	errReadNothing = errors.New("who has not signed in reads nothing here")
	errSignedOut   = errors.New("you are not signed in, or not any more")
	errInPlain     = errors.New("others could read a token on its way here; set http.tls, or come over loopback, as by ssh -L")
)

// reading makes a page of those who may read.
func reading(page pageFunc) pageFunc {
	return func(r *http.Request) (shownPage, error) {
		v := visitorOf(r)
		if v.Role >= access.Viewer {
			return page(r)
		}
		if v.private {
			return shownPage{redirect: signInPath(r)}, nil
		}
		return shownPage{}, errReadNothing
	}
}

// signInPath returns the path of the page to sign in on, which leads back to the page that was
// asked for.
func signInPath(r *http.Request) string {
	return Path + "signin?" + url.Values{"next": {r.URL.RequestURI()}}.Encode()
}
