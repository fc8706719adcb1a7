package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
)

// Bounds of the tokens of one file.
const (
	leastToken   = 20  // characters: 15 random octets in base64
	longestToken = 512 // characters
	mostTokens   = 16  // in a file
)

// Token is the SHA-256 of a bearer token. Comparing it tells nothing of the
// token by its time.
type Token [sha256.Size]byte

// Errors of token files. None contains a part of a token.
var (
	errNoToken   = errors.New("has no token; write one a line, such as that of: openssl rand -hex 32")
	errManyToken = fmt.Errorf("has more than %d tokens; give other callers files of their own", mostTokens)
)

// ParseTokens reads a token file: one token a line, several while one takes the
// place of another.
func ParseTokens(file []byte) ([]Token, error) {
	var tokens []Token
	line := 0
	for text := range strings.Lines(string(file)) {
		line++
		if text = strings.TrimRight(text, "\r\n"); text == "" {
			continue
		}
		token, err := ParseToken(text)
		if err != nil {
			return nil, fmt.Errorf("line %d %w", line, err)
		}
		if len(tokens) == mostTokens {
			return nil, errManyToken
		}
		tokens = append(tokens, token)
	}
	if len(tokens) == 0 {
		return nil, errNoToken
	}
	return tokens, nil
}

// ParseToken reads one token. Its error contains no part of it.
func ParseToken(text string) (Token, error) {
	if err := checkToken(text); err != nil {
		return Token{}, err
	}
	return sha256.Sum256([]byte(text)), nil
}

// checkToken checks the form of a token (b64token, RFC 6750 section 2.1).
func checkToken(text string) error {
	body := strings.TrimRight(text, "=")
	switch {
	case strings.ContainsFunc(body, func(r rune) bool { return !isTokenRune(r) }) || body == "":
		return errors.New("is no token: it may contain letters, digits and -._~+/, with = at its end")
	case len(text) < leastToken:
		return fmt.Errorf("has a token of %d characters, which can be guessed; write at least %d", len(text), leastToken)
	case len(text) > longestToken:
		return fmt.Errorf("has a token of %d characters; write at most %d", len(text), longestToken)
	}
	return nil
}

func isTokenRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._~+/", r)
}

// ErrCredentials is the error of an Authorization header that is not exactly
// one bearer token.
var ErrCredentials = errors.New("the authorization of the call is no bearer token; send one as \"Bearer TOKEN\"")

// ParseBearer returns the token in the values of the header Authorization (RFC
// 6750 section 2.1), and whether there is such a header.
func ParseBearer(headers []string) (token Token, ok bool, err error) {
	if len(headers) == 0 {
		return Token{}, false, nil
	}
	scheme, text, _ := strings.Cut(headers[0], " ")
	token, err = ParseToken(text)
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || err != nil {
		return Token{}, true, ErrCredentials
	}
	return token, true, nil
}

// equal takes the same time for all tokens.
func (t Token) equal(other Token) bool { return subtle.ConstantTimeCompare(t[:], other[:]) == 1 }
