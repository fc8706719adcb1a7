package config

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strings"
	"time"
)

func (l *loader) radsec(v value) {
	c := &l.config.RADIUS.RadSec
	keys := fields{
		"listen":                     func(v value) { c.Listen = v.listens() },
		"idle_timeout":               func(v value) { v.duration(&c.IdleTimeout, time.Second) },
		"max_connections":            func(v value) { v.positive(&c.MaxConnections) },
		"max_connections_per_client": func(v value) { v.positive(&c.MaxConnectionsPerClient) },
	}
	maps.Copy(keys, l.tls(&c.TLS))
	v.mapping(keys)
	v.checkTLS(c.TLS)
}

// certificate reads the identification of a RadSec client.
func (v value) certificate(to *Certificate) {
	v.mapping(fields{
		"san": func(v value) {
			if s, ok := v.scalar(); ok {
				to.SAN = strings.TrimSpace(s)
			}
		},
		"fingerprint": func(v value) { v.fingerprint(&to.Fingerprint) },
	})
}

// fingerprint reads the output of openssl x509 -fingerprint -sha256, with or
// without the colons.
func (v value) fingerprint(to *[sha256.Size]byte) {
	s, ok := v.scalar()
	if !ok || s == "" {
		return
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) != sha256.Size {
		v.errorf("%q is not a SHA-256 fingerprint; write the 64 hexadecimal digits of openssl x509 -noout -fingerprint -sha256", s)
		return
	}
	*to = [sha256.Size]byte(b)
}

// checkCertificates reports RadSec files that are missing for the clients'
// certificates.
func (l *loader) checkCertificates(v value) {
	files := l.config.RADIUS.RadSec.TLS
	for _, c := range l.config.RADIUS.Clients {
		none := [sha256.Size]byte{}
		switch {
		case c.Certificate == Certificate{}:
		case files.CertFile == "":
			v.child("radsec.cert_file").errorf("is missing; the certificate of client %s needs RadSec", c.Name)
			return
		case c.Certificate.Fingerprint == none && files.ClientCAFile == "":
			v.child("radsec.client_ca_file").errorf("is missing; the SAN of client %s is believed only in a certificate of these CAs", c.Name)
			return
		}
	}
}
