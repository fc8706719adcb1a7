package radsec

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
)

// A Certificate identifies a client (RFC 6614 section 2.3). If both fields are set, both
// must match.
type Certificate struct {
	// SAN is one of the subject alternative names of the client's certificate: a DNS name,
	// an IP address or a URI. Without a Fingerprint the certificate must be of a configured
	// CA.
	SAN string
	// Fingerprint is that of the certificate itself, which then need not be of a configured
	// CA.
	Fingerprint Fingerprint
}

// A Fingerprint is the SHA-256 of a certificate (DER). The zero value is none.
type Fingerprint [sha256.Size]byte

// A Table maps certificates of clients to values of type T. Its zero value is empty.
// Concurrent reads are safe while there is no Add.
type Table[T any] struct {
	fingerprints map[Fingerprint]*row[T]
	names        map[string]*row[T] // rows without a fingerprint
}

type row[T any] struct {
	client string
	san    string // canonical
	value  T
}

// Add enters the value for a client's certificate. It fails if another client has it.
func (t *Table[T]) Add(c Certificate, client string, value T) error {
	if t.names == nil {
		t.fingerprints, t.names = make(map[Fingerprint]*row[T]), make(map[string]*row[T])
	}
	r := &row[T]{client, canonicalName(c.SAN), value}
	switch {
	case c.Fingerprint != Fingerprint{} && t.fingerprints[c.Fingerprint] != nil:
		return fmt.Errorf("the fingerprint is already that of client %q", t.fingerprints[c.Fingerprint].client)
	case c.Fingerprint != Fingerprint{}:
		t.fingerprints[c.Fingerprint] = r
	case t.names[r.san] != nil:
		return fmt.Errorf("the SAN %s is already that of client %q", r.san, t.names[r.san].client)
	default:
		t.names[r.san] = r
	}
	return nil
}

// Identify returns the value for an identity, and whether there is one.
func (t *Table[T]) Identify(i Identity) (value T, ok bool) {
	names := namesOf(i.Cert)
	if r := t.fingerprints[sha256.Sum256(i.Cert.Raw)]; r != nil && (r.san == "" || names[r.san]) {
		return r.value, true
	}
	if !i.Trusted {
		return value, false
	}
	var found *row[T]
	for name := range names {
		r := t.names[name]
		if r != nil && found != nil && r.client != found.client {
			return value, false // one certificate matches two clients: neither
		}
		if r != nil {
			found = r
		}
	}
	if found == nil {
		return value, false
	}
	return found.value, true
}

// canonicalName returns the same text for equal names.
func canonicalName(name string) string {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().String()
	}
	if strings.Contains(name, "://") {
		return name // case matters in URIs
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// namesOf returns the subject alternative names of a certificate.
func namesOf(cert *x509.Certificate) map[string]bool {
	names := make(map[string]bool)
	for _, n := range cert.DNSNames {
		names[canonicalName(n)] = true
	}
	for _, ip := range cert.IPAddresses {
		names[canonicalName(ip.String())] = true
	}
	for _, u := range cert.URIs {
		names[canonicalName(u.String())] = true
	}
	return names
}
