package access

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
)

// Errors of names that no certificate can be known by.
var (
	errNoName     = errors.New("is empty; write a DNS name or URI of the certificate")
	errWildcard   = errors.New("wildcards match nothing here; write each name")
	errAddress    = errors.New("is an IP address; write a DNS name or URI of the certificate")
	errMailbox    = errors.New("is an e-mail address; write a DNS name or URI of the certificate")
	errURI        = errors.New("is not a URI; write one such as spiffe://isp/noc")
	errDNSName    = errors.New("is no DNS name; write it in ASCII, such as noc.example or xn--bcher-kva.example")
	errBlankOfSAN = errors.New("contains a blank; write the name alone")
)

// ParseSAN reads a subject alternative name to compare with: a DNS name, or a
// URI. It returns equal text for equal names. Wildcards are refused, so that
// one that a CA issues by mistake has no role.
func ParseSAN(name string) (string, error) {
	_, notAddress := netip.ParseAddr(strings.TrimSuffix(name, "."))
	switch {
	case name == "":
		return "", errNoName
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "", errBlankOfSAN
	case strings.Contains(name, "*"):
		return "", errWildcard
	case notAddress == nil:
		return "", errAddress
	case isURI(name):
		if u, err := url.Parse(name); err != nil || !u.IsAbs() || u.String() != name {
			return "", errURI
		}
		return name, nil
	case strings.Contains(name, "@"):
		return "", errMailbox
	}
	name = strings.ToLower(strings.TrimSuffix(name, ".")) // equal DNS names are alike (RFC 4343 section 3)
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.HasSuffix(name, ".") || name == "" {
		return "", errDNSName
	}
	return name, nil
}

// isURI reports whether a name is meant as a URI: no DNS name contains a colon.
func isURI(name string) bool { return strings.Contains(name, ":") }

// SANs returns the names of a certificate to compare with those of ParseSAN:
// URIs first. Those in the certificate that ParseSAN would refuse are left out.
func SANs(uris []*url.URL, dns []string) []string {
	var names []string
	for _, u := range uris {
		if name, err := ParseSAN(u.String()); err == nil && isURI(name) {
			names = append(names, name)
		}
	}
	for _, d := range dns {
		if name, err := ParseSAN(d); err == nil && !isURI(name) {
			names = append(names, name)
		}
	}
	return names
}
