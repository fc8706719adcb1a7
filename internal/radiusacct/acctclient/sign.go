package acctclient

import (
	"crypto/hmac"
	"crypto/md5"
	"fmt"

	"layeh.com/radius"
	"layeh.com/radius/rfc2869"
)

// Encode signs a request: an Accounting-Request with the Request Authenticator
// of RFC 2866 section 3, a Status-Server under the random authenticator it
// already holds (RFC 5997 section 3). With messageAuth, and always for a
// Status-Server, a Message-Authenticator (RFC 3579 section 3.2) comes last.
func Encode(p *radius.Packet, secret []byte, messageAuth bool) ([]byte, error) {
	q := *p
	q.Secret = secret
	if q.Code == radius.CodeAccountingRequest {
		q.Authenticator = [16]byte{} // both hashes are computed over zeros here
	}
	if messageAuth || q.Code == radius.CodeStatusServer {
		if err := addMessageAuth(&q); err != nil {
			return nil, err
		}
	}
	b, err := q.Encode()
	if err != nil {
		return nil, fmt.Errorf("acctclient: encode %v: %w", q.Code, err)
	}
	return b, nil
}

func addMessageAuth(p *radius.Packet) error {
	value := make(radius.Attribute, md5.Size)
	p.Attributes = append(p.Attributes[:len(p.Attributes):len(p.Attributes)],
		&radius.AVP{Type: rfc2869.MessageAuthenticator_Type, Attribute: value})
	b, err := p.MarshalBinary()
	if err != nil {
		return fmt.Errorf("acctclient: encode %v: %w", p.Code, err)
	}
	mac := hmac.New(md5.New, p.Secret)
	mac.Write(b)
	mac.Sum(value[:0])
	return nil
}

// Verify reports whether reply is a complete Accounting-Response to request, under the
// secret.
func Verify(reply, request, secret []byte) bool {
	p, err := radius.Parse(reply, secret)
	if err != nil || p.Code != radius.CodeAccountingResponse || len(request) < 20 || p.Identifier != request[1] {
		return false
	}
	length := int(reply[2])<<8 | int(reply[3])
	return radius.IsAuthenticResponse(reply[:length], request, secret)
}
