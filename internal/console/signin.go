package console

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/signin"
)

// Tokens tells who holds a token, by the rights in force, as package control does.
type Tokens interface {
	TokenActor(t access.Token, c *access.Caller) (access.Actor, error)
}

// signInBody is the page to sign in on.
type signInBody struct {
	Next    string // path of the page to go on with
	Problem string // of the last attempt
}

func signInPage(b signInBody, code int) shownPage {
	return shownPage{template: "signin.html", Title: "Sign in", Body: b, code: code}
}

// signInFormPage asks for a token.
func (c *Console) signInFormPage(r *http.Request) (shownPage, error) {
	if v := visitorOf(r); !v.private {
		return shownPage{}, errInPlain
	}
	return signInPage(signInBody{Next: nextPath(r.FormValue("next"))}, http.StatusOK), nil
}

// nextPath returns a path of the console to go on with: the one that a request names, if it is one.
func nextPath(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(text, Path) ||
		strings.ContainsAny(text, "\\") || path.Clean(u.Path)+"/" != Path && !strings.HasPrefix(path.Clean(u.Path), Path) {
		return Path
	}
	return text
}

// signIn begins a session for the holder of a token. Wrong tokens of a source are bounded; a right one is
// taken in any case, so that nobody keeps others out who come from the same address.
func (c *Console) signIn(w http.ResponseWriter, r *http.Request) (shownPage, error) {
	v := visitorOf(r)
	if !v.private {
		return shownPage{}, errInPlain
	}
	now := c.Now()
	b := signInBody{Next: nextPath(r.PostFormValue("next"))}
	token, err := access.ParseToken(strings.TrimSpace(r.PostFormValue("token")))
	var actor access.Actor
	if err == nil {
		actor, err = c.Tokens.TokenActor(token, callerOf(r))
	}
	if err != nil {
		c.refuseSignIn(r, err)
		if wait := c.attempts.Fail(sourceOf(r), now); wait > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())+1))
			b.Problem = "There were too many wrong tokens from where you are. Look at the token, and try again in a minute."
			return signInPage(b, http.StatusTooManyRequests), nil
		}
		b.Problem = "This token is not known. Look into grpc.roles, and whether its file was changed."
		return signInPage(b, http.StatusForbidden), nil
	}
	if v.session != nil {
		c.sessions.End(v.id)
	}
	id, _ := c.sessions.Begin(signin.Holder{Token: token, Name: actor.Name, Role: actor.Role, User: localUser(r)}, now)
	http.SetCookie(w, cookieOf(r, id))
	c.Logger.Info("signed in to the console", "actor", actor.Name, "peer", r.RemoteAddr)
	return shownPage{redirect: b.Next}, nil
}

// refuseSignIn logs an attempt, at a bounded rate.
func (c *Console) refuseSignIn(r *http.Request, why error) {
	if suppressed, ok := c.refusals.Allow(time.Now()); ok {
		c.Logger.Warn("sign-in to the console refused", "peer", r.RemoteAddr, "error", why, "suppressed", suppressed)
	}
}

// signOutPurpose is the path of the form that signs out.
const signOutPurpose = Path + "signout"

// signOut ends the session.
func (c *Console) signOut(w http.ResponseWriter, r *http.Request) (shownPage, error) {
	v := visitorOf(r)
	if v.session != nil {
		if err := v.session.Check(formOf(r), c.Now()); err != nil {
			return shownPage{}, err
		}
		c.sessions.End(v.id)
		c.Logger.Info("signed out of the console", "actor", v.Name, "peer", r.RemoteAddr)
	}
	http.SetCookie(w, cookieOf(r, ""))
	return shownPage{redirect: Path}, nil
}

// formOf returns the form that a request sends, to check its signature.
func formOf(r *http.Request) signin.Form {
	return signin.Form{
		Purpose: r.URL.Path, RequestID: r.PostFormValue("request_id"), Until: r.PostFormValue("until"), Signature: r.PostFormValue("signature"),
	}
}
