package control_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// renewed is a server whose files are exchanged for those of another CA.
type renewed struct {
	*controltest.Server
	old, next controltest.Certs
	files     control.TLS // those that the server reads
	log       sharedBuffer
	told      *ledger
}

func serveRenewed(t *testing.T) *renewed {
	t.Helper()
	dir := t.TempDir()
	r := &renewed{
		old: controltest.MakeCerts(t), next: controltest.MakeCerts(t), told: newLedger(),
		files: control.TLS{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), ClientCAFile: filepath.Join(dir, "ca")},
	}
	for to, from := range map[string]string{r.files.CertFile: r.old.Server, r.files.KeyFile: r.old.ServerKey, r.files.ClientCAFile: r.old.CA} {
		writeFile(t, to, readFile(t, from))
	}
	r.Server = controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.TLS, o.Observer, o.Logger = r.files, r.told, slog.New(slog.NewTextHandler(&r.log, nil))
	})
	return r
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// awaitLine waits until the log has so many lines with a text.
func (r *renewed) awaitLine(t *testing.T, text string, lines int) {
	t.Helper()
	await(t, 5*time.Second, codes.OK, func() error {
		if n := r.log.lines(text); n < lines {
			return errors.New(text + " is not in the log")
		}
		return nil
	})
}

// client is a configuration of a client with a certificate of certs, which
// trusts both CAs.
func (r *renewed) client(t *testing.T, certs controltest.Certs) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.Client, certs.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(readFile(t, r.old.CA)))
	roots.AppendCertsFromPEM([]byte(readFile(t, r.next.CA)))
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}
}

// ask makes one call over a connection of its own.
func (r *renewed) ask(ctx context.Context, config *tls.Config) error {
	conn, err := grpc.NewClient(r.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return err
	}
	_, err = pb.NewControlServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{})
	return errors.Join(err, conn.Close())
}

// exchange puts a file in another's place at once.
func exchange(t *testing.T, file, text string) {
	t.Helper()
	writeFile(t, file+".new", text)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// TestRenewalFailsNoCall: while certificate, key and CAs are exchanged, in any
// order and half-written in between, every call succeeds, over connections that
// are there and new ones.
func TestRenewalFailsNoCall(t *testing.T) {
	t.Parallel()
	r := serveRenewed(t)
	config := r.client(t, r.old)
	lasting := dial(t, r.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	ended, end := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	made, failed := 0, []error(nil)
	calls.Go(func() {
		for ended.Err() == nil {
			_, err := pb.NewControlServiceClient(lasting).GetStatus(t.Context(), &pb.GetStatusRequest{})
			if err := errors.Join(err, r.ask(t.Context(), config)); err != nil {
				failed = append(failed, err)
			}
			made++
		}
	})
	const unusable, taken = "changed files cannot be used", "changed files are in force"
	both := readFile(t, r.old.CA) + readFile(t, r.next.CA)
	writeFile(t, r.files.CertFile, readFile(t, r.next.Server)) // without its key
	r.awaitLine(t, unusable, 1)
	r.told.await(t, "certificate false", 1)
	if r.log.lines(taken) != 0 {
		t.Error("half of a pair is in force")
	}
	writeFile(t, r.files.KeyFile, readFile(t, r.next.ServerKey))
	r.awaitLine(t, taken, 1)
	r.told.await(t, "certificate true", 2)                  // the first time at the start
	writeFile(t, r.files.ClientCAFile, both[:len(both)-40]) // within a certificate
	r.awaitLine(t, unusable, 2)
	r.told.await(t, "client_ca false", 1)
	exchange(t, r.files.ClientCAFile, both)
	r.awaitLine(t, taken, 2)
	r.told.await(t, "client_ca true", 2)
	if err := os.Remove(r.files.KeyFile); err != nil {
		t.Fatal(err)
	}
	r.awaitLine(t, unusable, 3)
	r.told.await(t, "certificate false", 2)
	end()
	calls.Wait()
	if made < 5 || len(failed) > 0 {
		t.Errorf("of %d calls %d failed: %v", made, len(failed), errors.Join(failed...))
	}
	conn, err := tls.Dial("tcp", r.Address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pair, err := tls.LoadX509KeyPair(r.next.Server, r.next.ServerKey)
	if shown := conn.ConnectionState().PeerCertificates[0].Raw; err != nil || !bytes.Equal(shown, pair.Certificate[0]) {
		t.Errorf("the new certificate is not shown: %v", err)
	}
}

// TestCAIsWithdrawn: within 5 s after a CA is taken out of the file, its
// certificates open no connection, not even by a session of before, and
// connections that they opened end. Others go on.
func TestCAIsWithdrawn(t *testing.T) {
	t.Parallel()
	r := serveRenewed(t)
	exchange(t, r.files.ClientCAFile, readFile(t, r.old.CA)+readFile(t, r.next.CA))
	r.awaitLine(t, "changed files are in force", 1)
	old, next := r.client(t, r.old), r.client(t, r.next)
	old.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	leaving, err := watch(ctx, dial(t, r.Address, grpc.WithTransportCredentials(credentials.NewTLS(old))))
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, r.Address, grpc.WithTransportCredentials(credentials.NewTLS(next)))
	staying, err := watch(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, r.files.ClientCAFile, readFile(t, r.next.CA))
	withdrawn := time.Now()
	if _, err := leaving.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a stream of the old CA: %v", err)
	}
	await(t, 5*time.Second, codes.Unavailable, func() error { return r.ask(t.Context(), old) })
	if took := time.Since(withdrawn); took > 5*time.Second {
		t.Errorf("the old CA is in force for %v", took)
	}
	r.told.await(t, "closed untrusted", 1)
	if err := r.ask(t.Context(), next); err != nil {
		t.Errorf("the new CA: %v", err)
	}
	r.Stop(t)
	if _, err := staying.Recv(); status.Code(err) != codes.Unavailable || !bytes.Contains([]byte(err.Error()), []byte("stopping")) {
		t.Errorf("a stream of the new CA ended with %v, not with the server", err)
	}
}

// TestExpiredCertificateLosesItsConnection: a certificate counts until it
// expires, on connections that are there too.
func TestExpiredCertificateLosesItsConnection(t *testing.T) {
	t.Parallel()
	r := serveRenewed(t)
	short := r.old
	short.Client, short.ClientKey = short.Issue(t, x509.Certificate{NotAfter: time.Now().Add(4 * time.Second)})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := watch(ctx, dial(t, r.Address, grpc.WithTransportCredentials(credentials.NewTLS(r.client(t, short)))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	r.told.await(t, "closed untrusted", 1)
}
