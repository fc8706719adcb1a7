package control

import (
	"math"
	"reflect"
	"testing"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

var somePosition = inspect.Position{Run: math.MaxUint64, Seq: 300, Feeds: []inspect.FeedPosition{
	{Group: "default", Epoch: 5, Entry: subscriber.ParseVersion("1772359200000-3"), Changes: 64},
	{Group: "east", Epoch: math.MaxUint64, Entry: subscriber.ParseVersion("0-0")},
}}

func TestResumeTokens(t *testing.T) {
	t.Parallel()
	for _, p := range []inspect.Position{{}, {Run: 1, Seq: 2}, somePosition} {
		token := resumeToken(p)
		if got, err := parseResumeToken(token); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%+v became %+v, %v", p, got, err)
		}
		for i := range token { // one damaged letter
			damaged := []byte(token)
			damaged[i]++
			if got, err := parseResumeToken(string(damaged)); err == nil {
				t.Errorf("letter %d damaged: %+v", i, got)
			}
		}
		if _, err := parseResumeToken(token[:len(token)-1]); err == nil {
			t.Error("a shorter token was taken")
		}
	}
	if n := len(resumeToken(somePosition)); n > 120 {
		t.Errorf("a token has %d octets", n)
	}
}

// TestTokenOfAnotherVersion: a token from a later sessiond is no error, but none to go on from.
func TestTokenOfAnotherVersion(t *testing.T) {
	t.Parallel()
	if p, err := parseResumeToken(withSum([]byte{tokenVersion + 1, 1, 2, 3})); err != nil || !reflect.DeepEqual(p, inspect.Position{}) {
		t.Errorf("%+v, %v", p, err)
	}
}

// FuzzResumeToken: no text makes the parser panic, and one that is taken is the only token of
// its position.
func FuzzResumeToken(f *testing.F) {
	f.Add(resumeToken(somePosition))
	f.Add(resumeToken(inspect.Position{}))
	f.Add("")
	f.Add("AAAAAAE")
	f.Fuzz(func(t *testing.T, text string) {
		for _, token := range []string{text, withSum(append([]byte{tokenVersion}, text...))} {
			p, err := parseResumeToken(token)
			if err == nil && !reflect.DeepEqual(p, inspect.Position{}) && resumeToken(p) != token {
				t.Errorf("token %q was read as %+v, which has another token", token, p)
			}
		}
	})
}
