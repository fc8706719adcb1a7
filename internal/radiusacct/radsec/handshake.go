package radsec

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

// Secret is the shared secret on all connections (RFC 6614 section 2.3). TLS provides the
// security.
const Secret = "radsec"

var (
	errNoCertificate      = errors.New("the client shows no certificate")
	errCertificateExpired = errors.New("the client's certificate is not valid at this time")
	errUnknownCertificate = errors.New("the client's certificate is that of no configured client")
)

// load reads the files. The minimum is TLS 1.2 (RFC 9325). Sessions are not resumed, so
// that each connection shows its certificate.
func (o *Options) load() (*tls.Config, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("load TLS certificate: %w", err)
	}
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAnyClientCert, // identify checks it
		SessionTicketsDisabled: true,
	}
	if o.ClientCAFile == "" {
		return config, nil, nil
	}
	pem, err := os.ReadFile(o.ClientCAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read client CAs: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("read client CAs: no certificate in %s", o.ClientCAFile)
	}
	return config, config.ClientCAs, nil
}

// An Identity is the certificate that a client has proved to own.
type Identity struct {
	Cert    *x509.Certificate
	Trusted bool // issued by one of the client CAs
}

// handshake makes an accepted connection the stream of a known client.
func (r *Server) handshake(ctx context.Context, raw net.Conn, source netip.AddrPort) (*Stream, *refusal) {
	var who Identity
	greet := func(*tls.ClientHelloInfo) (*tls.Config, error) { // the files are read only once the peer has sent a ClientHello
		config, roots, err := r.options.load()
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
	ctx, cancel := context.WithTimeout(ctx, r.options.HandshakeTimeout)
	defer cancel()
	switch err := conn.HandshakeContext(ctx); {
	case errors.Is(err, errUnknownCertificate):
		return nil, &refusal{RefusedUnknown, err}
	case err != nil:
		return nil, &refusal{RefusedHandshake, err}
	}
	s := newStream(r, conn, raw, source, who)
	if s.client = s.conversation.Client(); s.client == "" { // its client was removed meanwhile
		return nil, &refusal{RefusedUnknown, errUnknownCertificate}
	}
	return s, nil
}

// identify checks a certificate chain and finds its client.
func (r *Server) identify(chain []*x509.Certificate, roots *x509.CertPool) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errNoCertificate
	}
	now := r.service.Now()
	if now.Before(chain[0].NotBefore) || now.After(chain[0].NotAfter) {
		return Identity{}, errCertificateExpired
	}
	who := Identity{Cert: chain[0], Trusted: roots != nil && issued(chain, roots, now)}
	if r.service.Identify(who) == "" {
		return Identity{}, errUnknownCertificate
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
