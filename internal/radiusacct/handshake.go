package radiusacct

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// radsecSecret is the shared secret on all TLS connections (RFC 6614 section 2.3): TLS has
// taken over its work.
const radsecSecret = "radsec"

var (
	errNoCertificate      = errors.New("the client shows no certificate")
	errCertificateExpired = errors.New("the client's certificate is not valid at this time")
	errUnknownCertificate = errors.New("the client's certificate is that of no configured client")
)

// load reads the files. TLS begins at 1.2 (RFC 9325). Sessions are not resumed,
// so that each connection proves anew who it is.
func (c *RadSec) load() (*tls.Config, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("load TLS certificate: %w", err)
	}
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAnyClientCert, // recognise says which
		SessionTicketsDisabled: true,
	}
	if c.ClientCAFile == "" {
		return config, nil, nil
	}
	pem, err := os.ReadFile(c.ClientCAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read client CAs: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("read client CAs: no certificate in %s", c.ClientCAFile)
	}
	return config, config.ClientCAs, nil
}

// An identity is what a client proved about itself.
type identity struct {
	cert    *x509.Certificate
	trusted bool // issued by one of the client CAs
}

// client is who has this identity now; nil for nobody.
func (i identity) client(t *clientTable) *client {
	return t.certificates.identify(i.cert, i.trusted)
}

// handshake makes a connection that was accepted into the stream of a known client.
func (r *radsec) handshake(ctx context.Context, raw net.Conn, source netip.AddrPort) (*stream, *refusal) {
	var who identity
	greet := func(*tls.ClientHelloInfo) (*tls.Config, error) { // who says nothing costs no reading
		config, roots, err := r.config.load()
		if err != nil {
			return nil, err
		}
		config.VerifyConnection = func(state tls.ConnectionState) (err error) {
			who, err = r.identify(state.PeerCertificates, roots)
			return err
		}
		return config, nil
	}
	conn := tls.Server(raw, &tls.Config{GetConfigForClient: greet})
	ctx, cancel := context.WithTimeout(ctx, r.config.HandshakeTimeout)
	defer cancel()
	switch err := conn.HandshakeContext(ctx); {
	case errors.Is(err, errUnknownCertificate):
		return nil, &refusal{RefusedUnknown, err}
	case err != nil:
		return nil, &refusal{RefusedHandshake, err}
	}
	s := newStream(r.server, conn, raw, source, who)
	if s.current() == nil { // reloaded meanwhile
		return nil, &refusal{RefusedUnknown, errUnknownCertificate}
	}
	s.peer = s.client.peer
	return s, nil
}

// identify checks a certificate chain and finds its client.
func (r *radsec) identify(chain []*x509.Certificate, roots *x509.CertPool) (identity, error) {
	if len(chain) == 0 {
		return identity{}, errNoCertificate
	}
	now := r.server.now()
	if now.Before(chain[0].NotBefore) || now.After(chain[0].NotAfter) {
		return identity{}, errCertificateExpired
	}
	who := identity{cert: chain[0], trusted: roots != nil && issued(chain, roots, now)}
	if who.client(r.server.clients.Load()) == nil {
		return identity{}, errUnknownCertificate
	}
	return who, nil
}

// issued reports whether a chain leads to one of the roots.
func issued(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	options := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	return err == nil
}
