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
	tokenVariable   = "SESSIOND_TOKEN_FILE"
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

// connection is the way to the daemon.
type connection struct {
	address string
	timeout time.Duration // of one call
	tls     tlsFiles
	token   string           // path of a file with a token; "": none
	conn    *grpc.ClientConn // opened by the first call
	waits   *progressLine    // of calls
}

// connect opens the connection on first use. It does not wait for the daemon.
func (c *connection) connect() (*grpc.ClientConn, error) {
	if c.conn != nil {
		return c.conn, nil
	}
	creds, err := c.tls.credentials()
	if err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(c.address); err != nil && !strings.HasPrefix(c.address, "unix:") {
		return nil, usagef("--addr: %q is neither host:port nor unix:PATH", c.address)
	}
	bearer, err := c.bearer()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(c.address,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: connectTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: min(c.timeout, connectTimeout)}),
		grpc.WithNoProxy(),
		grpc.WithPerRPCCredentials(bearer),
	)
	if err != nil {
		return nil, usagef("--addr %s: %w", c.address, err)
	}
	c.conn = conn
	return conn, nil
}

// close closes the connection, if a call opened it.
func (c *connection) close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
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
func (c *connection) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	end := c.waits.begin()
	return ctx, func() {
		cancel()
		end()
	}
}

func (c *connection) subscribers() (pb.SubscriberServiceClient, error) {
	conn, err := c.connect()
	return pb.NewSubscriberServiceClient(conn), err
}

func (c *connection) nat() (pb.NatServiceClient, error) {
	conn, err := c.connect()
	return pb.NewNatServiceClient(conn), err
}

func (c *connection) sessions() (pb.SessionServiceClient, error) {
	conn, err := c.connect()
	return pb.NewSessionServiceClient(conn), err
}

func (c *connection) control() (pb.ControlServiceClient, error) {
	conn, err := c.connect()
	return pb.NewControlServiceClient(conn), err
}

func (c *connection) removals() (pb.RemovalServiceClient, error) {
	conn, err := c.connect()
	return pb.NewRemovalServiceClient(conn), err
}

func (c *connection) mappings() (pb.MappingServiceClient, error) {
	conn, err := c.connect()
	return pb.NewMappingServiceClient(conn), err
}

func (c *connection) audits() (pb.AuditServiceClient, error) {
	conn, err := c.connect()
	return pb.NewAuditServiceClient(conn), err
}

func (c *connection) nases() (pb.NasServiceClient, error) {
	conn, err := c.connect()
	return pb.NewNasServiceClient(conn), err
}

func (c *connection) desk() (pb.DeskServiceClient, error) {
	conn, err := c.connect()
	return pb.NewDeskServiceClient(conn), err
}

func (c *connection) pasts() (pb.HistoryServiceClient, error) {
	conn, err := c.connect()
	return pb.NewHistoryServiceClient(conn), err
}
