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
	"testing"
	"time"
)

// Certs are PEM files: a CA, and a certificate of it with key for a server on
// loopback and for a client.
type Certs struct {
	CA, Server, ServerKey, Client, ClientKey string
}

// MakeCerts makes new Certs in a directory of the test.
func MakeCerts(t testing.TB) Certs {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	c := Certs{file("ca.pem"), file("server.pem"), file("server.key"), file("client.pem"), file("client.key")}
	ca, caKey := certificate(t, 1, nil, nil)
	writePEM(t, c.CA, "CERTIFICATE", ca.Raw)
	writePair(t, c.Server, c.ServerKey, 2, ca, caKey)
	writePair(t, c.Client, c.ClientKey, 3, ca, caKey)
	return c
}

func writePair(t testing.TB, certFile, keyFile string, serial int64, ca *x509.Certificate, caKey *ecdsa.PrivateKey) {
	t.Helper()
	cert, key := certificate(t, serial, ca, caKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certFile, "CERTIFICATE", cert.Raw)
	writePEM(t, keyFile, "PRIVATE KEY", der)
}

// certificate makes a certificate issued by the CA; without one it makes a CA.
func certificate(t testing.TB, serial int64, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		Subject:               pkix.Name{CommonName: fmt.Sprint("sessiond test ", serial)}, // different from the CA's, as OpenSSL requires
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  ca == nil,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
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
