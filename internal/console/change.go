package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/signin"
)

// changeCalls are the calls of the API that change something here. They pass the same checks as
// over gRPC, for the visitor in their context.
type changeCalls struct {
	subscribers pb.SubscriberServiceClient
	sessions    pb.SessionServiceClient
	controls    pb.ControlServiceClient
	removals    pb.RemovalServiceClient
	nat         pb.NatServiceClient
}

func callsOver(conn grpc.ClientConnInterface) changeCalls {
	return changeCalls{
		pb.NewSubscriberServiceClient(conn), pb.NewSessionServiceClient(conn), pb.NewControlServiceClient(conn),
		pb.NewRemovalServiceClient(conn), pb.NewNatServiceClient(conn),
	}
}

// changeOrder has the fields of the API that all changes have.
type changeOrder struct {
	Reason       string
	RequestID    string
	ValidateOnly bool

	// Begun, of one that only validates, says that a part of the change may be made. Its form goes on
	// with it, so it stays as it is.
	Begun bool
}

// changeInput is what a change is about: the address in its path, and the fields of its query, or
// of its form once that is sent.
type changeInput struct {
	Address netip.Addr
	url.Values
}

// changeText tells of a change: what it would do, or what it did.
type changeText struct {
	Title  string
	About  []labelledText
	Effect string
	Notes  []string // what follows from it
	None   bool     // there is nothing to change
	Button string
	Back   string // path of the page to go on with

	Filter []formField // which the person may change, to see the effect of another change
	Hidden []formField // that the form brings back
}

type labelledText struct{ Label, Text string }

type formField struct{ Name, Label, Value, Hint string }

// changeFunc makes the call, and tells what it does.
type changeFunc func(ctx context.Context, in changeInput, o changeOrder) (changeText, error)

// offeredChange is a change that pages offer.
type offeredChange struct {
	path   string // below Path, as a pattern of http.ServeMux
	method string // of the API, whose role is needed
	call   changeFunc
}

// offeredChanges returns all changes that a browser can order.
func (c *Console) offeredChanges() []offeredChange {
	return []offeredChange{
		{"subscribers/{address}/end", pb.SubscriberService_DeleteSubscribers_FullMethodName, c.endSubscriber},
		{"subscribers/{address}/terminate", pb.SessionService_TerminateSessions_FullMethodName, c.terminateSessions},
		{"settings/removal", pb.ControlService_UpdateSettings_FullMethodName, c.switchRemoval},
		{"removals/confirm", pb.RemovalService_ConfirmRemovals_FullMethodName, c.confirmRemovals},
		{"removals/refuse", pb.RemovalService_RefuseRemovals_FullMethodName, c.refuseRemovals},
		{"pools/drain", pb.NatService_DrainPool_FullMethodName, c.drainPool},
		{"pools/add", pb.NatService_AddPool_FullMethodName, c.addPool},
	}
}

// changeBody is the page of a change, with its form.
type changeBody struct {
	changeText
	signin.Form
	Reason  string
	Problem string // of the last attempt
	Field   string // that the problem is about, "" for none
	Begun   bool   // a part may be made, with which the form goes on
}

// previewPage shows what a change would do, and asks for it.
func (c *Console) previewPage(ch offeredChange) pageFunc {
	return func(r *http.Request) (shownPage, error) {
		v := visitorOf(r)
		if v.session == nil && v.private {
			return shownPage{redirect: signInPath(r)}, nil
		}
		if err := mayOrder(&v, ch); err != nil {
			return shownPage{}, err
		}
		in, err := inputOf(r)
		if err != nil {
			return shownPage{}, err
		}
		return c.asked(r, ch, in, changeBody{Form: v.session.NewForm(r.URL.Path, c.Now())}, http.StatusOK)
	}
}

// mayOrder returns an error unless the visitor has signed in, with the role for a change.
func mayOrder(v *visitor, ch offeredChange) error {
	if v.session == nil {
		return errSignedOut
	}
	return access.Authorize(v.Actor, ch.method, nil)
}

// inputOf reads what a change is about.
func inputOf(r *http.Request) (changeInput, error) {
	in := changeInput{Values: r.URL.Query()}
	if r.Method == http.MethodPost {
		in.Values = r.PostForm
	}
	var err error
	if text := r.PathValue("address"); text != "" {
		in.Address, err = addressIn(text)
	}
	return in, err
}

// asked returns the page that asks for a change, with its effect as of now.
func (c *Console) asked(r *http.Request, ch offeredChange, in changeInput, b changeBody, code int) (shownPage, error) {
	var err error
	if b.changeText, err = ch.call(r.Context(), in, changeOrder{ValidateOnly: true, Begun: b.Begun}); err != nil {
		return shownPage{}, err
	}
	return shownPage{template: "change.html", Title: b.Title, Section: sectionOf(ch.path), Body: b, code: code}, nil
}

// sectionOf returns the section of the navigation that a page is in.
func sectionOf(path string) string {
	section, _, _ := strings.Cut(path, "/")
	if section == "pools" {
		return "outside"
	}
	return section
}

// answerWithin is the time to send the page behind a change.
const answerWithin = 30 * time.Second

// orderPage orders a change, and leads to the page with its outcome.
func (c *Console) orderPage(ch offeredChange) answerFunc {
	return func(w http.ResponseWriter, r *http.Request) (shownPage, error) {
		v := visitorOf(r)
		if err := mayOrder(&v, ch); err != nil {
			return shownPage{}, err
		}
		in, err := inputOf(r)
		if err != nil {
			return shownPage{}, err
		}
		b := changeBody{Form: formOf(r), Reason: strings.TrimSpace(r.PostFormValue("reason"))}
		switch err := v.session.Check(b.Form, c.Now()); {
		case errors.Is(err, signin.ErrExpired):
			b.Problem = "The form was too old. Look at the change again, as it would be now, and send it again."
			b.Form = v.session.NewForm(r.URL.Path, c.Now())
			return c.asked(r, ch, in, b, http.StatusConflict)
		case err != nil:
			return shownPage{}, err
		}
		if b.Reason == "" {
			b.Field, b.Problem = "reason", "reason: is required; write a few words, such as the number of a ticket"
			return c.asked(r, ch, in, b, http.StatusBadRequest)
		}
		// The end of many subscribers takes longer than a page may. The call has a bound of its own. The
		// errors are those of a connection without deadlines.
		deadline := http.NewResponseController(w)
		_ = deadline.SetWriteDeadline(time.Time{})
		defer func() { _ = deadline.SetWriteDeadline(time.Now().Add(answerWithin)) }()
		// A browser that leaves, as one does that sends the form again, stops no change halfway.
		done, err := ch.call(context.WithoutCancel(r.Context()), in, changeOrder{Reason: b.Reason, RequestID: b.RequestID})
		if err != nil {
			return c.askedAgain(r, ch, in, b, err)
		}
		v.session.Keep(signin.Outcome{RequestID: b.RequestID, Title: done.Title, Text: done.Effect, Back: done.Back})
		return shownPage{redirect: Path + "done/" + url.PathEscape(b.RequestID)}, nil
	}
}

// askedAgain returns the page of a change that failed, with the problem.
func (c *Console) askedAgain(r *http.Request, ch offeredChange, in changeInput, b changeBody, failed error) (shownPage, error) {
	if code := httpCode(failed); code == http.StatusForbidden || code == http.StatusInternalServerError {
		return shownPage{}, &orderError{b.RequestID, failed}
	}
	b.Problem, b.Field = status.Convert(failed).Message(), fieldOf(failed)
	if b.Begun = !changedNothing(failed); b.Begun {
		b.Problem += ". A part may be changed; if the form is sent again, that goes on with the same change"
	}
	if b.Field == "request_id" { // used for another request: the next sending is one of its own
		v := visitorOf(r)
		b.Problem = "This form was sent before, with other contents. Look at the change again, and send it again if it is to be made too."
		b.Form = v.session.NewForm(r.URL.Path, c.Now())
	}
	p, err := c.asked(r, ch, in, b, httpCode(failed))
	if err != nil {
		return shownPage{}, &orderError{b.RequestID, failed} // without the preview
	}
	return p, nil
}

// changedNothing reports whether an error of the API leaves no doubt about that.
func changedNothing(err error) bool {
	info := errorInfo(err)
	if info.GetMetadata()["begun"] != "" {
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown:
		return slices.Contains([]string{"AUDIT_UNAVAILABLE", "NOT_READY", "STOPPING"}, info.GetReason())
	}
	return true
}

// errorInfo returns the ErrorInfo of an error of the API, nil for none.
func errorInfo(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

// orderError is the failure of a change that was ordered.
type orderError struct {
	requestID string
	err       error
}

// Error implements error.
func (e *orderError) Error() string {
	text := status.Convert(e.err).Message()
	if changedNothing(e.err) {
		return text
	}
	return text + "; sessionctl audit list --request-id " + e.requestID + " tells what was changed"
}

// Unwrap returns the error of the API.
func (e *orderError) Unwrap() error { return e.err }

// fieldOf returns the field of a request that an error is about, "" for none.
func fieldOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// httpCodes are the status codes of errors of the API.
var httpCodes = map[codes.Code]int{
	codes.InvalidArgument: http.StatusBadRequest, codes.NotFound: http.StatusNotFound,
	codes.PermissionDenied: http.StatusForbidden, codes.Unauthenticated: http.StatusForbidden,
	codes.FailedPrecondition: http.StatusConflict, codes.Aborted: http.StatusConflict, codes.AlreadyExists: http.StatusConflict,
	codes.ResourceExhausted: http.StatusServiceUnavailable, codes.Unavailable: http.StatusServiceUnavailable,
	codes.DeadlineExceeded: http.StatusGatewayTimeout, codes.Canceled: http.StatusServiceUnavailable,
}

func httpCode(err error) int {
	if code, ok := httpCodes[status.Code(err)]; ok {
		return code
	}
	return http.StatusInternalServerError
}

// donePage tells the outcome of a change. It can be loaded again, which changes nothing.
func (c *Console) donePage(r *http.Request) (shownPage, error) {
	v := visitorOf(r)
	id := r.PathValue("request")
	if v.session == nil {
		return shownPage{}, errSignedOut
	}
	o, ok := v.session.Outcome(id)
	if !ok {
		return shownPage{}, fmt.Errorf("%w: the outcome of %.200q is not known here; sessionctl audit list --request-id has its entries", errNoPage, id)
	}
	return shownPage{template: "done.html", Title: o.Title, Section: sectionOf(strings.TrimPrefix(o.Back, Path)), Body: o}, nil
}
