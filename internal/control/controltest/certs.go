package controltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Certs are PEM files: a CA, and a certificate of it with key for a server on
// loopback and for a client.
type Certs struct {
	CA, Server, ServerKey, Client, ClientKey string

	dir    string
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	issued *atomic.Int64
}

// MakeCerts makes new Certs in a directory of the test.
func MakeCerts(t testing.TB) Certs {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	c := Certs{
		CA: file("ca.pem"), Server: file("server.pem"), ServerKey: file("server.key"), Client: file("client.pem"), ClientKey: file("client.key"),
		dir: dir, issued: &atomic.Int64{},
	}
	c.ca, c.caKey = certificate(t, &x509.Certificate{SerialNumber: big.NewInt(c.issued.Add(1)), IsCA: true}, nil, nil)
	writePEM(t, c.CA, "CERTIFICATE", c.ca.Raw)
	c.write(t, c.Server, c.ServerKey, &x509.Certificate{})
	c.write(t, c.Client, c.ClientKey, &x509.Certificate{})
	return c
}

// Issue makes a certificate of the CA with the template's names and end of validity, if it has
// these, and returns its files.
func (c *Certs) Issue(t testing.TB, template x509.Certificate) (cert, key string) {
	t.Helper()
	name := filepath.Join(c.dir, fmt.Sprint("issued-", c.issued.Load()))
	c.write(t, name+".pem", name+".key", &template)
	return name + ".pem", name + ".key"
}

func (c *Certs) write(t testing.TB, certFile, keyFile string, template *x509.Certificate) {
	t.Helper()
	template.SerialNumber = big.NewInt(c.issued.Add(1))
	cert, key := certificate(t, template, c.ca, c.caKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certFile, "CERTIFICATE", cert.Raw)
	writePEM(t, keyFile, "PRIVATE KEY", der)
}

// certificate makes a certificate issued by the CA; without one it makes a CA.
func certificate(t testing.TB, template, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.Subject = pkix.Name{CommonName: fmt.Sprint("sessiond test ", template.SerialNumber)} // different from the CA's, as OpenSSL requires
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
