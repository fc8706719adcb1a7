package control_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// trusting is a client configuration without a certificate.
func trusting(t *testing.T, certs controltest.Certs) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(certs.CA)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}
	config.RootCAs.AppendCertsFromPEM(pem)
	return config
}

// clientTLS is a client configuration with a certificate.
func clientTLS(t *testing.T, certs controltest.Certs) credentials.TransportCredentials {
	t.Helper()
	config := trusting(t, certs)
	pair, err := tls.LoadX509KeyPair(certs.Client, certs.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{pair}
	return credentials.NewTLS(config)
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	certs := controltest.MakeCerts(t)
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.TLS = control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey, ClientCAFile: certs.CA}
	})
	for name, one := range map[string]struct {
		creds credentials.TransportCredentials
		want  codes.Code
	}{
		"with a certificate":    {clientTLS(t, certs), codes.OK},
		"without a certificate": {credentials.NewTLS(trusting(t, certs)), codes.Unavailable},
		"in the clear":          {insecure.NewCredentials(), codes.Unavailable},
	} {
		conn := dial(t, server.Address, grpc.WithTransportCredentials(one.creds))
		_, err := pb.NewControlServiceClient(conn).GetStatus(t.Context(), &pb.GetStatusRequest{})
		if status.Code(err) != one.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClientCAFileMustHoldCertificates(t *testing.T) {
	t.Parallel()
	certs := controltest.MakeCerts(t)
	o := options("127.0.0.1:0")
	o.TLS = control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey, ClientCAFile: certs.ServerKey}
	if _, err := control.New(o); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("New: %v", err)
	}
}
