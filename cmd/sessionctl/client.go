package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

const (
	defaultAddress  = "127.0.0.1:7900"
	defaultSocket   = "/run/sessiond/grpc.sock" // preferred, if it can be opened
	addressVariable = "SESSIONCTL_ADDR"
	defaultTimeout  = 30 * time.Second
	connectTimeout  = 5 * time.Second // at most; --timeout may be shorter

	// maxMessage is above the largest page of the daemon: a thousand subscribers
	// with names of 253 octets that all need escaping.
	maxMessage = 32 << 20

	keepaliveTime = 30 * time.Second // detects a dead daemon while watching
)

// tlsFiles are the files given on the command line. All empty means no TLS.
type tlsFiles struct{ ca, cert, key string }

// systemCAs as --tls-ca means the system's trusted certificates.
const systemCAs = "system"

func (t tlsFiles) credentials() (credentials.TransportCredentials, error) {
	if t == (tlsFiles{}) {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.ca != "" && t.ca != systemCAs {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, usagef("--tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("--tls-ca: no certificate in %s", t.ca)
		}
	}
	if t.cert != "" {
		cert, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, usagef("--tls-cert, --tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return credentials.NewTLS(config), nil
}

// connect opens the connection on first use. It does not wait for the daemon.
func (a *app) connect() (*grpc.ClientConn, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	creds, err := a.tls.credentials()
	if err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(a.address); err != nil && !strings.HasPrefix(a.address, "unix:") {
		return nil, usagef("--addr: %q is neither host:port nor unix:PATH", a.address)
	}
	conn, err := grpc.NewClient(a.address,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: connectTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: min(a.timeout, connectTimeout)}),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, usagef("--addr %s: %w", a.address, err)
	}
	a.conn = conn
	return conn, nil
}

// reachable returns the default address of a daemon on this machine: its unix
// socket if that can be opened, else TCP.
func reachable(socket string) string {
	c, err := net.DialTimeout("unix", socket, connectTimeout)
	if err != nil {
		return defaultAddress
	}
	_ = c.Close()
	return "unix:" + socket
}

// bounded limits one call to --timeout.
func (a *app) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.timeout)
}

func (a *app) subscribers() (pb.SubscriberServiceClient, error) {
	conn, err := a.connect()
	return pb.NewSubscriberServiceClient(conn), err
}

func (a *app) nat() (pb.NatServiceClient, error) {
	conn, err := a.connect()
	return pb.NewNatServiceClient(conn), err
}

func (a *app) sessions() (pb.SessionServiceClient, error) {
	conn, err := a.connect()
	return pb.NewSessionServiceClient(conn), err
}

func (a *app) control() (pb.ControlServiceClient, error) {
	conn, err := a.connect()
	return pb.NewControlServiceClient(conn), err
}

func (a *app) removals() (pb.RemovalServiceClient, error) {
	conn, err := a.connect()
	return pb.NewRemovalServiceClient(conn), err
}

func (a *app) nases() (pb.NasServiceClient, error) {
	conn, err := a.connect()
	return pb.NewNasServiceClient(conn), err
}
