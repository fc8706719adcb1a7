package control

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

var somePosition = inspect.Position{Run: math.MaxUint64, Seq: 300, Feeds: []inspect.FeedPosition{
	{Group: "default", Epoch: 5, Entry: subscriber.ParseVersion("1772359200000-3"), Changes: 64},
	{Group: "east", Epoch: math.MaxUint64, Entry: subscriber.ParseVersion("0-0")},
}}

var someList = &listPlace{filter: math.MaxUint32, listed: 300, listPart: listPart{
	group: "east", after: subscriber.Key{Group: "east", Inside: netip.MustParseAddr("100.64.0.7")},
}}

func TestResumeTokens(t *testing.T) {
	t.Parallel()
	for i, p := range []inspect.Position{{}, {Run: 1, Seq: 2}, somePosition, somePosition, {}} {
		list := []*listPlace{nil, nil, nil, someList, {filter: 7}}[i]
		token := watchToken(p, list)
		if got, place, err := parseResumeToken(token); err != nil || !reflect.DeepEqual(got, p) || !reflect.DeepEqual(place, list) {
			t.Errorf("%+v and %+v became %+v and %+v, %v", p, list, got, place, err)
		}
		for i := range token { // one damaged letter
			damaged := []byte(token)
			damaged[i]++
			if got, _, err := parseResumeToken(string(damaged)); err == nil {
				t.Errorf("letter %d damaged: %+v", i, got)
			}
		}
		if _, _, err := parseResumeToken(token[:len(token)-1]); err == nil {
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
	if p, _, err := parseResumeToken(withSum([]byte{tokenVersion + 1, 1, 2, 3})); err != nil || !reflect.DeepEqual(p, inspect.Position{}) {
		t.Errorf("%+v, %v", p, err)
	}
}

// FuzzResumeToken: no text makes the parser panic, and one that is taken is the only token of
// its position.
func FuzzResumeToken(f *testing.F) {
	f.Add(resumeToken(somePosition))
	f.Add(resumeToken(inspect.Position{}))
	f.Add(watchToken(somePosition, someList))
	f.Add("")
	f.Add("AAAAAAE")
	f.Fuzz(func(t *testing.T, text string) {
		for _, token := range []string{text, withSum(append([]byte{tokenVersion}, text...))} {
			p, list, err := parseResumeToken(token)
			if err == nil && (!reflect.DeepEqual(p, inspect.Position{}) || list != nil) && watchToken(p, list) != token {
				t.Errorf("token %q was read as %+v, which has another token", token, p)
			}
		}
	})
}

// TestManyGroupsKeepTheBound_I10: events of a daemon with 1,000 groups, each with its token, take no
// more memory than others.
func TestManyGroupsKeepTheBound_I10(t *testing.T) {
	const most = 8 << 20
	b := inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: 1, Octets: most, Keep: time.Minute})
	messages, err := b.Watch(t.Context(), inspect.Watch{}, inspect.FeedPositions{})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(n int) {
		var f inspect.FeedPositions
		for i := range 1000 {
			f.Shared = append(f.Shared, inspect.FeedPosition{
				Group: fmt.Sprintf("group-%04d", i), Epoch: math.MaxUint64, Entry: subscriber.ParseVersion("1772359200000-1234"),
			})
		}
		f.Own = f.Shared[n%1000]
		f.Own.Changes = 64
		b.Publish(inspect.Event{Kind: inspect.EventUpdated}, f)
	}
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before, n, tokens := heap(), 0, 0
	publish(0)
	for m, err := range messages {
		if err != nil {
			t.Fatal(err)
		}
		octets, err := m.Notice.Encoded(encodeNotice)
		if err != nil {
			t.Fatal(err)
		}
		tokens += len(octets)
		if n++; n == 600 {
			break
		}
		publish(n)
	}
	if used := heap() - before; used > most*5/4 || used < most/2 || tokens < 3*most {
		t.Errorf("%d events of %d octets take %d, want %d", n, tokens, used, most)
	}
	runtime.KeepAlive(b)
}
