package radiusacct

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
)

// A Certificate says by what a RadSec client is recognised (RFC 6614 section
// 2.3). With both fields, both must fit.
type Certificate struct {
	// SAN is one of the subject alternative names of the client's certificate: a
	// DNS name, an IP address or a URI. Alone, it is believed only in a
	// certificate of the configured CAs.
	SAN string
	// Fingerprint is that of the certificate itself, which then need not be of
	// a CA.
	Fingerprint Fingerprint
}

// A Fingerprint is the SHA-256 of a certificate (DER). The zero value is none.
type Fingerprint [sha256.Size]byte

// A certificateTable finds clients by certificate.
type certificateTable struct {
	fingerprints map[Fingerprint]*client
	names        map[string]*client // of clients without a fingerprint
}

func newCertificateTable() certificateTable {
	return certificateTable{fingerprints: make(map[Fingerprint]*client), names: make(map[string]*client)}
}

// add enters a client, as it is on connections: under RadSec's own secret.
func (t *certificateTable) add(c *client) error {
	onStream := *c
	onStream.Secret, onStream.PreviousSecret = []byte(radsecSecret), nil
	onStream.Certificate.SAN = canonicalName(c.Certificate.SAN)
	print, name := onStream.Certificate.Fingerprint, onStream.Certificate.SAN
	switch {
	case print != Fingerprint{} && t.fingerprints[print] != nil:
		return fmt.Errorf("the fingerprint is already that of client %q", t.fingerprints[print].Name)
	case print != Fingerprint{}:
		t.fingerprints[print] = &onStream
	case t.names[name] != nil:
		return fmt.Errorf("the SAN %s is already that of client %q", name, t.names[name].Name)
	default:
		t.names[name] = &onStream
	}
	return nil
}

// canonicalName makes equal names look alike.
func canonicalName(name string) string {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().String()
	}
	if strings.Contains(name, "://") {
		return name // case matters in URIs
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// identify returns the client that shows a certificate, nil when there is
// none. Trusted tells whether the certificate is of the configured CAs.
func (t *certificateTable) identify(cert *x509.Certificate, trusted bool) *client {
	names := namesOf(cert)
	if c := t.fingerprints[sha256.Sum256(cert.Raw)]; c != nil {
		if san := c.Certificate.SAN; san == "" || names[san] {
			return c
		}
	}
	if !trusted {
		return nil
	}
	var found *client
	for name := range names {
		c := t.names[name]
		if c != nil && found != nil && c.Name != found.Name {
			return nil // two clients in one certificate: neither
		}
		if c != nil {
			found = c
		}
	}
	return found
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
