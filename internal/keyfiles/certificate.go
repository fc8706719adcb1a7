package keyfiles

import (
	"crypto/tls"
	"sync/atomic"
)

// Certificate is the certificate of a server with its key, each from a PEM file. Its methods may
// be called concurrently, apart from those of Set.
type Certificate struct {
	set   *Set
	inUse atomic.Pointer[tls.Certificate]
}

// OpenCertificate reads a chain and the key of its first certificate.
func OpenCertificate(chainFile, keyFile string) (*Certificate, error) {
	c := &Certificate{}
	var err error
	c.set, err = Open(func(files []File) error {
		pair, err := KeyPair(files)
		if err == nil {
			c.inUse.Store(&pair)
		}
		return err
	}, chainFile, keyFile)
	return c, err
}

// KeyPair returns the certificate of two files: a chain, and the key of its first certificate.
func KeyPair(files []File) (tls.Certificate, error) {
	for _, f := range files {
		if f.Err != nil {
			return tls.Certificate{}, f.Err
		}
	}
	return tls.X509KeyPair(files[0].Data, files[1].Data)
}

// Get returns the certificate in force, for tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.inUse.Load(), nil }

// Set returns the files, to look at.
func (c *Certificate) Set() *Set { return c.set }
