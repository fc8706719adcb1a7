package control

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Sizes of pages.
const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

func pageSize(asked int32) (int, error) {
	switch {
	case asked < 0:
		return 0, invalid("page_size", "must not be negative; 0 stands for %d", defaultPageSize)
	case asked == 0:
		return defaultPageSize, nil
	default:
		return min(int(asked), maxPageSize), nil
	}
}

// A page token is the key of the page's last item after a checksum. The
// checksum detects a damaged token, and a token of another list or filter. The
// server keeps no state for it.

// newToken makes the token for the page after the item with that key. The scope
// is the list and its filter.
func newToken(scope string, key ...string) string {
	body := strings.Join(key, "\x00")
	sum := binary.BigEndian.AppendUint32(nil, checksum(scope, body))
	return base64.RawURLEncoding.EncodeToString(append(sum, body...))
}

// parseToken returns the n parts of the key in a token from newToken.
func parseToken(token, scope string, n int) ([]string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 4 || base64.RawURLEncoding.EncodeToString(raw) != token {
		return nil, badToken()
	}
	sum, body := binary.BigEndian.Uint32(raw), string(raw[4:])
	key := strings.Split(body, "\x00")
	if sum != checksum(scope, body) || len(key) != n {
		return nil, badToken()
	}
	return key, nil
}

func checksum(scope, body string) uint32 {
	return crc32.ChecksumIEEE([]byte(scope + "\x00" + body))
}

func badToken() error {
	return invalid("page_token", "not a token of this list and filter; begin without one")
}

func subscriberToken(f inspect.SubscriberFilter, k subscriber.Key) string {
	return newToken(scopeOf("subscribers", f), k.Group, k.Inside.String())
}

func parseSubscriberToken(token string, f inspect.SubscriberFilter) (subscriber.Key, error) {
	if token == "" {
		return subscriber.Key{}, nil
	}
	parts, err := parseToken(token, scopeOf("subscribers", f), 2)
	if err != nil {
		return subscriber.Key{}, err
	}
	inside, err := netip.ParseAddr(parts[1])
	if err != nil {
		return subscriber.Key{}, badToken()
	}
	return subscriber.Key{Group: parts[0], Inside: inside}, nil
}

func bindingToken(f inspect.BindingFilter, k inspect.BindingKey) string {
	return newToken(scopeOf("bindings", f),
		k.Group, k.Inside.String(), k.Outside.String(), strconv.Itoa(int(k.First)))
}

func parseBindingToken(token string, f inspect.BindingFilter) (inspect.BindingKey, error) {
	if token == "" {
		return inspect.BindingKey{}, nil
	}
	parts, err := parseToken(token, scopeOf("bindings", f), 4)
	if err != nil {
		return inspect.BindingKey{}, err
	}
	inside, errInside := netip.ParseAddr(parts[1])
	outside, errOutside := netip.ParseAddr(parts[2])
	first, errFirst := strconv.ParseUint(parts[3], 10, 16)
	if errInside != nil || errOutside != nil || errFirst != nil {
		return inspect.BindingKey{}, badToken()
	}
	return inspect.BindingKey{Group: parts[0], Inside: inside, Outside: outside, First: nat.Port(first)}, nil
}

func mappingToken(f inspect.MappingFilter, k inspect.MappingKey) string {
	return newToken(scopeOf("mappings", f), k.Group, k.Outside.AddrPort.String(), strconv.Itoa(int(k.Outside.Protocol)))
}

func parseMappingToken(token string, f inspect.MappingFilter) (inspect.MappingKey, error) {
	if token == "" {
		return inspect.MappingKey{}, nil
	}
	parts, err := parseToken(token, scopeOf("mappings", f), 3)
	if err != nil {
		return inspect.MappingKey{}, err
	}
	outside, errOutside := netip.ParseAddrPort(parts[1])
	protocol, errProtocol := strconv.ParseUint(parts[2], 10, 8)
	if errOutside != nil || errProtocol != nil {
		return inspect.MappingKey{}, badToken()
	}
	return inspect.MappingKey{Group: parts[0], Outside: nat.Endpoint{Protocol: uint8(protocol), AddrPort: outside}}, nil
}

func removalToken(f inspect.RemovalFilter, k inspect.RemovalKey) string {
	return newToken(scopeOf("removals", f),
		k.Group, k.Inside.String(), strconv.Itoa(int(k.Kind)), k.Since.Format(time.RFC3339Nano))
}

func parseRemovalToken(token string, f inspect.RemovalFilter) (inspect.RemovalKey, error) {
	if token == "" {
		return inspect.RemovalKey{}, nil
	}
	parts, err := parseToken(token, scopeOf("removals", f), 4)
	if err != nil {
		return inspect.RemovalKey{}, err
	}
	inside, errInside := netip.ParseAddr(parts[1])
	kind, errKind := strconv.ParseUint(parts[2], 10, 8)
	since, errSince := time.Parse(time.RFC3339Nano, parts[3])
	if errInside != nil || errKind != nil || errSince != nil {
		return inspect.RemovalKey{}, badToken()
	}
	key := subscriber.Key{Group: parts[0], Inside: inside}
	return inspect.RemovalKey{Key: key, Kind: inspect.RemovalKind(kind), Since: since}, nil
}

func nasToken(f inspect.NASFilter, k inspect.NASKey) string {
	return newToken(scopeOf("nases", f), toText(k.Client), toText(k.Name))
}

func parseNASToken(token string, f inspect.NASFilter) (inspect.NASKey, error) {
	if token == "" {
		return inspect.NASKey{}, nil
	}
	parts, err := parseToken(token, scopeOf("nases", f), 2)
	if err != nil {
		return inspect.NASKey{}, err
	}
	return inspect.NASKey{Client: toOctets(parts[0]), Name: toOctets(parts[1])}, nil
}

func scopeOf(list string, filter any) string { return fmt.Sprintf("%s %+v", list, filter) }

// Orders of lists, each of which has an index.
const (
	orderInside = "inside_address"
	orderUser   = "user_name"
	orderNAS    = "client,name"
)

// fromOrder reads order_by (AIP-132): one of the orders that a list has, of which the first is the
// default. Blanks mean nothing.
func fromOrder(text string, orders ...string) (string, error) {
	order := strings.Join(strings.Fields(text), "")
	switch {
	case order == "":
		return orders[0], nil
	case slices.Contains(orders, order):
		return order, nil
	}
	return "", invalid("order_by", "this list has no order %q; write one of: %s", text, strings.Join(orders, "; "))
}

// total is the field of a number of items that is counted.
func total(n int) *uint32 {
	m := count(n)
	return &m
}

func nameToken(f inspect.SubscriberFilter, k inspect.NameKey) string {
	return newToken(scopeOf("subscribers by name", f), toText(k.UserName), k.Inside.String())
}

func parseNameToken(token string, f inspect.SubscriberFilter) (inspect.NameKey, error) {
	if token == "" {
		return inspect.NameKey{}, nil
	}
	parts, err := parseToken(token, scopeOf("subscribers by name", f), 2)
	if err != nil {
		return inspect.NameKey{}, err
	}
	inside, err := netip.ParseAddr(parts[1])
	if err != nil {
		return inspect.NameKey{}, badToken()
	}
	return inspect.NameKey{UserName: toOctets(parts[0]), Inside: inside}, nil
}
