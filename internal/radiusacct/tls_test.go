package radiusacct_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
)

// An authority issues certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	self := a.template("test CA")
	self.IsCA, self.BasicConstraintsValid = true, true
	self.KeyUsage = x509.KeyUsageCertSign
	var der []byte
	der, a.key = a.sign(self, self, nil)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.pem = cert, encodePEM("CERTIFICATE", der)
	return a
}

func (a *authority) template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// sign makes a certificate with a new key, signed by parent's key or its own.
func (a *authority) sign(template, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// issue returns a certificate for a DNS name and 127.0.0.1, with the given changes.
func (a *authority) issue(name string, change ...func(*x509.Certificate)) tls.Certificate {
	template := a.template(name)
	template.DNSNames = []string{name}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	for _, f := range change {
		f(template)
	}
	der, key := a.sign(template, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeCertificate writes a certificate and its key into files.
func writeCertificate(t testing.TB, cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, certFile, encodePEM("CERTIFICATE", cert.Certificate[0]))
	writeFile(t, keyFile, encodePEM("PRIVATE KEY", key))
}

func writeFile(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// radsecLab is a lab with RadSec. Client "a" is a.example, "b" b.example.
type radsecLab struct {
	*lab
	ca                        *authority
	tls                       netip.AddrPort
	certFile, keyFile, caFile string
}

func startRadSec(t testing.TB, adjust ...func(*radiusacct.Options)) *radsecLab {
	t.Helper()
	dir := t.TempDir()
	l := &radsecLab{
		ca:       newAuthority(t),
		certFile: filepath.Join(dir, "cert.pem"),
		keyFile:  filepath.Join(dir, "key.pem"),
		caFile:   filepath.Join(dir, "ca.pem"),
	}
	writeCertificate(t, l.ca.issue("server.example"), l.certFile, l.keyFile)
	writeFile(t, l.caFile, l.ca.pem)
	secure := func(o *radiusacct.Options) {
		o.Clients[0].Certificate.SAN = "A.example"
		o.Clients[1].Certificate.SAN = "b.example"
		o.RadSec = &radsec.Options{
			Listen: []string{"127.0.0.1:0"}, CertFile: l.certFile, KeyFile: l.keyFile, ClientCAFile: l.caFile,
		}
	}
	l.lab = start(t, append([]func(*radiusacct.Options){secure}, adjust...)...)
	l.tls = l.RadSecAddrs()[0]
	return l
}

// config returns a client's configuration, with a certificate if there is one.
func (l *radsecLab) config(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(l.ca.cert)
	return &tls.Config{RootCAs: roots, ServerName: "server.example", Certificates: certs}
}

// connect connects as the client of a name.
func (l *radsecLab) connect(t testing.TB, name string) *tlsNAS {
	t.Helper()
	conn, err := l.dial(l.config(l.ca.issue(name)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &tlsNAS{t: t, conn: conn}
}

func (l *radsecLab) dial(config *tls.Config) (*tls.Conn, error) {
	return tls.Dial("tcp", l.tls.String(), config)
}

func fingerprintOf(cert tls.Certificate) radsec.Fingerprint {
	return sha256.Sum256(cert.Certificate[0])
}
