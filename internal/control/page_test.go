package control

import (
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

func TestPageSize(t *testing.T) {
	t.Parallel()
	for asked, want := range map[int32]int{0: 100, 1: 1, 999: 999, 1000: 1000, 1001: 1000, 1 << 30: 1000} {
		if got, err := pageSize(asked); got != want || err != nil {
			t.Errorf("pageSize(%d) = %d, %v; want %d", asked, got, err, want)
		}
	}
	if _, err := pageSize(-1); err == nil {
		t.Error("a negative page size was taken")
	}
}

func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	filter := inspect.SubscriberFilter{NAS: "bng1\x00\xff"}
	key := subscriber.Key{Group: "default", Inside: netip.MustParseAddr("100.64.0.1")}
	got, err := parseSubscriberToken(subscriberToken(filter, key), filter)
	if err != nil || got != key {
		t.Errorf("subscriber token: got %v, %v", got, err)
	}
	bkey := inspect.BindingKey{
		Group: "g", Inside: key.Inside, Outside: netip.MustParseAddr("198.51.100.1"), First: 65024,
	}
	bgot, err := parseBindingToken(bindingToken(inspect.BindingFilter{}, bkey), inspect.BindingFilter{})
	if err != nil || bgot != bkey {
		t.Errorf("binding token: got %v, %v", bgot, err)
	}
	nfilter, nkey := inspect.NASFilter{Client: "c"}, inspect.NASKey{Client: "c\x00", Name: "\x00%00\xff"}
	ngot, err := parseNASToken(nasToken(nfilter, nkey), nfilter)
	if err != nil || ngot != nkey {
		t.Errorf("NAS token: got %q, %v", ngot, err)
	}
}

func TestTokenOfAnotherList(t *testing.T) {
	t.Parallel()
	key := subscriber.Key{Group: "default", Inside: netip.MustParseAddr("100.64.0.1")}
	token := subscriberToken(inspect.SubscriberFilter{}, key)
	if _, err := parseSubscriberToken(token, inspect.SubscriberFilter{Group: "other"}); err == nil {
		t.Error("a token of another filter was taken")
	}
	if _, err := parseBindingToken(token, inspect.BindingFilter{}); err == nil {
		t.Error("a token of another list was taken")
	}
	if _, err := parseNASToken(token, inspect.NASFilter{}); err == nil {
		t.Error("a token of another list was taken for one of NASes")
	}
}

func FuzzToken(f *testing.F) {
	key := subscriber.Key{Group: "default", Inside: netip.MustParseAddr("100.64.0.1")}
	good := subscriberToken(inspect.SubscriberFilter{}, key)
	f.Add(good)
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		got, err := parseSubscriberToken(token, inspect.SubscriberFilter{})
		if err == nil && token != "" && subscriberToken(inspect.SubscriberFilter{}, got) != token {
			t.Errorf("token %q was read as %v, which has another token", token, got)
		}
		_, _ = parseBindingToken(token, inspect.BindingFilter{})
		_, _ = parseNASToken(token, inspect.NASFilter{})
	})
}
