package signin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// FormTime is the time in which a form of a change can be sent. A request_id is remembered for
// longer, from the first sending on, so that no form changes something twice.
const FormTime = 10 * time.Minute

// Errors of Session.Check.
var (
	ErrForged  = errors.New("the form is not one of this sign-in")
	ErrExpired = errors.New("the form is too old")
)

// Form is a form on a page of a session. Only the session can make its signature, and another site
// cannot read it; it is good for this purpose and request alone.
type Form struct {
	Purpose   string // the path that the form is sent to
	RequestID string
	Until     string // Unix time in seconds, after which it is too old
	Signature string
}

// NewForm returns a form with a request_id of its own.
func (s *Session) NewForm(purpose string, now time.Time) Form {
	return s.signed(Form{Purpose: purpose, RequestID: "console-" + rand.Text(), Until: strconv.FormatInt(now.Add(FormTime).Unix(), 10)})
}

// SignOutForm returns the form that ends the session, which can be sent as long as the session lasts.
func (s *Session) SignOutForm(purpose string) Form {
	return s.signed(Form{Purpose: purpose, Until: strconv.FormatInt(s.began.Add(Lifetime).Unix(), 10)})
}

func (s *Session) signed(f Form) Form {
	f.Signature = base64.RawURLEncoding.EncodeToString(s.mac(&f))
	return f
}

func (s *Session) mac(f *Form) []byte {
	h := hmac.New(sha256.New, s.secret)
	fmt.Fprintf(h, "%q %q %q", f.Purpose, f.RequestID, f.Until)
	return h.Sum(nil)
}

// Check returns ErrForged unless the session made the form, and ErrExpired if that is too long ago.
func (s *Session) Check(f Form, now time.Time) error {
	signature, err := base64.RawURLEncoding.DecodeString(f.Signature)
	if err != nil || !hmac.Equal(signature, s.mac(&f)) {
		return ErrForged
	}
	until, err := strconv.ParseInt(f.Until, 10, 64)
	if err != nil || now.Unix() > until {
		return ErrExpired
	}
	return nil
}
