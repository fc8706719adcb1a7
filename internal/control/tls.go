package control

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sessiond/sessiond/internal/keyfiles"
)

// TLS names the files that secure the listener. The zero value is no TLS. Files
// that change are read again within seconds.
type TLS struct {
	CertFile     string // PEM chain
	KeyFile      string // PEM key of the first certificate in CertFile
	ClientCAFile string // PEM; when set, clients must show a certificate issued by one of these
}

// tlsFiles has the certificate and the client CAs in force.
type tlsFiles struct {
	certificate []*keyfiles.Set            // one, with its key
	cas         []*keyfiles.Set            // at most one
	config      atomic.Pointer[tls.Config] // replaced as a whole
}

// sets returns all files.
func (f *tlsFiles) sets() []*keyfiles.Set { return slices.Concat(f.certificate, f.cas) }

// open reads the files. It returns nil without TLS.
//
// Sessions are not resumed: a resumed one is not checked against the CAs that
// are in force (go1.26, golang/go#77217).
func (t TLS) open() (*tlsFiles, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return nil, errors.New("TLS needs both CertFile and KeyFile")
	}
	f := &tlsFiles{}
	f.config.Store(&tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, SessionTicketsDisabled: true})
	if err := f.add(&f.certificate, useCertificate, t.CertFile, t.KeyFile); err != nil {
		return nil, fmt.Errorf("load TLS certificate: %w", err)
	}
	if t.ClientCAFile == "" {
		return f, nil
	}
	if err := f.add(&f.cas, useClientCAs, t.ClientCAFile); err != nil {
		return nil, fmt.Errorf("read client CAs: %w", err)
	}
	return f, nil
}

// add puts files in force, now and whenever they change, and adds them to a list.
func (f *tlsFiles) add(to *[]*keyfiles.Set, use func(*tls.Config, []keyfiles.File) error, paths ...string) error {
	set, err := keyfiles.Open(func(files []keyfiles.File) error {
		for _, file := range files {
			if file.Err != nil {
				return file.Err
			}
		}
		next := f.config.Load().Clone()
		if err := use(next, files); err != nil {
			return err
		}
		f.config.Store(next)
		return nil
	}, paths...)
	*to = append(*to, set)
	return err
}

func useCertificate(c *tls.Config, files []keyfiles.File) error {
	pair, err := keyfiles.KeyPair(files)
	c.Certificates = []tls.Certificate{pair}
	return err
}

func useClientCAs(c *tls.Config, files []keyfiles.File) (err error) {
	c.ClientCAs, err = certPool(&files[0])
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return err
}

// certPool reads all certificates of a file. It refuses a file that ends within
// one.
func certPool(f *keyfiles.File) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	rest := f.Data
	for block := (*pem.Block)(nil); ; {
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		pool.AddCert(cert)
		found = true
	}
	switch {
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return nil, fmt.Errorf("%s ends within a certificate", f.Path)
	case !found:
		return nil, fmt.Errorf("no certificate in %s", f.Path)
	}
	return pool, nil
}

// trust returns an error if the chain of a client does not lead to a client CA
// in force.
func (f *tlsFiles) trust(chain []*x509.Certificate) error {
	options := x509.VerifyOptions{
		Roots: f.config.Load().ClientCAs, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	return err
}

// credentials returns the credentials for doors.
func (f *tlsFiles) credentials() credentials.TransportCredentials {
	if f == nil {
		return doorCredentials{insecure.NewCredentials(), nil}
	}
	return doorCredentials{credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.config.Load(), nil },
	}), f}
}

// doorCredentials secures the connections of doors with TLS, and leaves the
// others plain.
type doorCredentials struct {
	credentials.TransportCredentials
	files *tlsFiles // nil without TLS
}

// ServerHandshake implements credentials.TransportCredentials.
func (d doorCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*connection)
	if !ok {
		return d.TransportCredentials.ServerHandshake(raw)
	}
	way := d.TransportCredentials
	if !c.door.secured {
		way = insecure.NewCredentials()
	}
	conn, info, err := way.ServerHandshake(raw)
	if secure, ok := info.(credentials.TLSInfo); ok && err == nil && c.door.certified {
		c.identify(&secure.State)
		err = d.files.trust(secure.State.PeerCertificates) // again: the CAs may have changed before expel knew of the certificate
	}
	if err != nil {
		c.door.tellHandshake(c, err)
		return nil, nil, err
	}
	return newFramed(conn, c.debt), info, nil
}

// Clone implements credentials.TransportCredentials.
func (d doorCredentials) Clone() credentials.TransportCredentials {
	return doorCredentials{d.TransportCredentials.Clone(), d.files}
}

// lastMoment returns the time until which a certificate is valid: until all
// certificates of one of its chains are.
func lastMoment(chains [][]*x509.Certificate) time.Time {
	var last time.Time
	for _, chain := range chains {
		until := chain[0].NotAfter
		for _, c := range chain {
			if c.NotAfter.Before(until) {
				until = c.NotAfter
			}
		}
		if until.After(last) {
			last = until
		}
	}
	return last
}
