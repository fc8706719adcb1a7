package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sessiond/sessiond/internal/access"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/measure"
	"github.com/sessiond/sessiond/internal/rawtext"
	"github.com/sessiond/sessiond/internal/signin"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// pageTemplates are the templates of pages, by name, each with the layout.
type pageTemplates map[string]*template.Template

const layoutFile = "layout.html"

func parseTemplates(now func() time.Time) (pageTemplates, error) {
	functions := template.FuncMap{
		"count": measure.Count, "octets": measure.Octets, "raw": rawtext.Of,
		"age":      func(t time.Time) string { return measure.Span(now().Sub(t)) },
		"in":       func(t time.Time) string { return measure.Span(t.Sub(now())) },
		"protocol": protocolName, "side": sideName,
	}
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	all := pageTemplates{}
	for _, name := range names {
		if name = path.Base(name); name == layoutFile {
			continue
		}
		t, err := template.New(layoutFile).Funcs(functions).ParseFS(templateFiles, "templates/"+layoutFile, "templates/"+name)
		if err != nil {
			return nil, err
		}
		all[name] = t
	}
	return all, nil
}

// shownPage is the outcome of a request: a page, or another address to go to.
type shownPage struct {
	template string // name of its file
	Title    string
	Section  string // of the navigation
	Query    string // in the search field
	Body     any
	Visitor  shownVisitor
	code     int    // status code, 0: 200
	redirect string // path of the page to go to instead
}

// shownVisitor is who sees a page.
type shownVisitor struct {
	Name, Role string // of who has signed in, else ""
	Reads      bool   // may read, so that the script can keep the page current
	SignOut    signin.Form
	SignIn     string // path of the page to sign in on, where that is possible and was not done
}

func shownVisitorOf(r *http.Request) shownVisitor {
	v := visitorOf(r)
	shown := shownVisitor{Reads: v.Role >= access.Viewer}
	switch {
	case v.session != nil:
		shown.Name, shown.Role, shown.SignOut = v.Name, v.Role.String(), v.session.SignOutForm(signOutPurpose)
	case v.private && r.URL.Path != Path+"signin":
		shown.SignIn = signInPath(r)
	}
	return shown
}

// pageFunc makes one page.
type pageFunc func(r *http.Request) (shownPage, error)

// answerFunc makes one page, and sets headers of the answer.
type answerFunc func(w http.ResponseWriter, r *http.Request) (shownPage, error)

func (c *Console) serve(page pageFunc) http.Handler {
	return c.answer(func(_ http.ResponseWriter, r *http.Request) (shownPage, error) { return page(r) })
}

func (c *Console) answer(page answerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := page(w, r)
		if err != nil {
			p = c.errorPage(err)
		}
		if p.redirect != "" {
			http.Redirect(w, r, p.redirect, http.StatusSeeOther)
			return
		}
		p.Visitor = shownVisitorOf(r)
		var body bytes.Buffer
		if err := c.templates[p.template].Execute(&body, p); err != nil {
			c.failed(err)
			http.Error(w, "the page cannot be made; the log has the reason", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if p.code != 0 {
			w.WriteHeader(p.code)
		}
		_, _ = body.WriteTo(w)
	})
}

// inputError is a mistake in a request.
type inputError struct{ text string }

// Error implements error.
func (e *inputError) Error() string { return e.text }

func badInput(format string, args ...any) error { return &inputError{fmt.Sprintf(format, args...)} }

// errorPage tells what went wrong, and what to do.
func (c *Console) errorPage(err error) shownPage {
	page := func(code int, title, text string) shownPage {
		return shownPage{template: "error.html", Title: title, Body: text, code: code}
	}
	var wrong *inputError
	var denied *access.DeniedError
	var failed *orderError
	switch {
	case errors.As(err, &wrong):
		return page(http.StatusBadRequest, "This cannot be read", wrong.text)
	case errors.Is(err, errNoPage):
		return page(http.StatusNotFound, "There is no such page", orElse(strings.TrimPrefix(err.Error(), errNoPage.Error()+": "), "The pages are in the navigation.", ""))
	case errors.Is(err, errSignedOut):
		return page(http.StatusForbidden, "Sign in first", "Nothing was changed: "+err.Error()+".")
	case errors.Is(err, errInPlain), errors.Is(err, errReadNothing):
		return page(http.StatusForbidden, "You cannot sign in here", err.Error()+".")
	case errors.Is(err, signin.ErrForged), errors.Is(err, signin.ErrExpired):
		return page(http.StatusForbidden, "Nothing was changed", err.Error()+". Open the page anew, and send the form of that.")
	case errors.As(err, &denied):
		return page(http.StatusForbidden, "This is for others", "Nothing was changed: "+err.Error()+". Sign in with a token that has that role in grpc.roles.")
	case errors.Is(err, inspect.ErrNotFound), errors.Is(err, inspect.ErrNoGroup), errors.Is(err, inspect.ErrNotCovered):
		return page(http.StatusNotFound, "Not found", err.Error())
	case errors.Is(err, inspect.ErrNotReady):
		return page(http.StatusServiceUnavailable, "Not ready yet", err.Error()+". Reload this page shortly.")
	case errors.Is(err, inspect.ErrUnavailable):
		return page(http.StatusServiceUnavailable, "The database cannot be reached", err.Error())
	}
	code := httpCode(err)
	if errors.As(err, &failed) {
		code = httpCode(failed.err)
	}
	switch {
	case failed != nil && code != http.StatusInternalServerError:
		return page(code, "The change failed", failed.Error()+".")
	case failed != nil:
		c.failed(err)
		return page(code, "The change failed", "The log of sessiond has the reason, and sessionctl audit list --request-id "+failed.requestID+" what was changed.")
	case code != http.StatusInternalServerError:
		return page(code, "This cannot be shown", status.Convert(err).Message()+".")
	}
	c.failed(err)
	return page(http.StatusInternalServerError, "The page cannot be made", "The log of sessiond has the reason.")
}

// failed logs a failure, at a bounded rate.
func (c *Console) failed(err error) {
	if suppressed, ok := c.failures.Allow(time.Now()); ok {
		c.Logger.Warn("console page failed", "error", err, "suppressed", suppressed)
	}
}

// embeddedFile is a script, style sheet or picture.
type embeddedFile struct {
	content []byte
	tag     string // ETag
}

func readAssets() (map[string]embeddedFile, error) {
	files, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		return nil, err
	}
	all := map[string]embeddedFile{}
	for _, f := range files {
		content, err := fs.ReadFile(assetFiles, "assets/"+f.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		all[f.Name()] = embeddedFile{content, `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return all, nil
}

func (c *Console) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	f, ok := c.assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache") // asked for again with its tag, so that a new version is seen
	w.Header().Set("ETag", f.tag)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.content))
}
