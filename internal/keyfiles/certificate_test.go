package keyfiles_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/keyfiles"
)

// writeCertificate writes a new certificate with its key, and returns its DER form.
func writeCertificate(t *testing.T, certFile, keyFile string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return der
}

// TestCertificate: a certificate is in force with its key, a new one once both files are whole, and
// the earlier one until then.
func TestCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "chain"), filepath.Join(dir, "key")
	if _, err := keyfiles.OpenCertificate(chain, key); !os.IsNotExist(err) {
		t.Errorf("without files: %v", err)
	}
	first := writeCertificate(t, chain, key)
	c, err := keyfiles.OpenCertificate(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	inForce := func(want []byte, when string) {
		t.Helper()
		got, err := c.Get(nil)
		if err != nil || !bytes.Equal(got.Certificate[0], want) {
			t.Errorf("%s: another certificate is in force, %v", when, err)
		}
	}
	var log strings.Builder
	look := func() bool {
		return keyfiles.LookAll([]*keyfiles.Set{c.Set()}, slog.New(slog.NewTextHandler(&log, nil)))
	}
	inForce(first, "at first")
	second := writeCertificate(t, chain, key)
	if err := os.Rename(key, key+".later"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if look() {
			t.Error("half a certificate is in force")
		}
	}
	inForce(first, "without a key")
	if n := strings.Count(log.String(), "stays in force"); n != 1 {
		t.Errorf("files that cannot be used are logged %d times:\n%s", n, log.String())
	}
	if err := os.Rename(key+".later", key); err != nil {
		t.Fatal(err)
	}
	if look() {
		t.Error("contents are in force that may be written still")
	}
	if !look() {
		t.Errorf("the new certificate is not in force:\n%s", log.String())
	}
	inForce(second, "in the end")
}
