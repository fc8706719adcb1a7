package radiusacct_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// startRadsecproxy runs a radsecproxy that takes accounting by datagrams, under the secret
// "hop", and sends it to the lab as a.example. It returns its address.
func startRadsecproxy(t *testing.T, l *radsecLab) string {
	t.Helper()
	testenv.Require(t, testenv.Radsecproxy)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, l.ca.issue("a.example"), cert, key)
	listen := freeUDPPort(t)
	config := filepath.Join(dir, "radsecproxy.conf")
	writeFile(t, config, fmt.Appendf(nil, `
ListenUDP %s
tls default {
	CACertificateFile %s
	CertificateFile %s
	CertificateKeyFile %s
}
client 127.0.0.1 {
	type udp
	secret hop
}
server sessiond {
	host %s
	port %d
	type tls
	secret radsec
	StatusServer on
}
realm * {
	accountingServer sessiond
}
`, listen, l.caFile, cert, key, l.tls.Addr(), l.tls.Port()))

	var out bytes.Buffer
	cmd := exec.Command("radsecproxy", "-f", "-d", "1", "-c", config)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("radsecproxy: %s", out.String())
		}
	})
	l.observer.wait(t, "opened/a", 1)
	return listen
}

func freeUDPPort(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

// TestRadsecproxy_RSEC01_RSEC03 tests against the usual implementation of RadSec.
func TestRadsecproxy_RSEC01_RSEC03(t *testing.T) {
	l := startRadSec(t)
	proxy := startRadsecproxy(t, l)
	client, err := acctclient.Dial(context.Background(), proxy, "", acctclient.Options{Secret: []byte("hop"), Timeout: time.Second, Transmissions: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, status := range []rfc2866.AcctStatusType{
		rfc2866.AcctStatusType_Value_Start, rfc2866.AcctStatusType_Value_InterimUpdate, rfc2866.AcctStatusType_Value_Stop,
	} {
		r := acctclient.Request{Status: status, UserName: "alice@isp.example", NASIdentifier: "bng7", SessionID: "s1"}
		if err := client.Account(context.Background(), r); err != nil {
			t.Fatalf("%v: %v", status, err)
		}
	}
	want := subscriber.SessionID{Client: "a", NAS: "bng7", AcctSessionID: "s1"}
	for _, ev := range l.recorder.recorded() {
		if ev.SessionID != want {
			t.Errorf("session %+v, want %+v", ev.SessionID, want)
		}
	}
	if got := len(l.recorder.recorded()); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
	flood(t, client, 500)
	if got := len(l.recorder.recorded()); got < 503 {
		t.Errorf("%d events, want 503", got)
	}
	if got := l.observer.count("a/unread/" + radiusacct.ResultMalformed); got != 0 {
		t.Errorf("%d requests of the proxy refused", got)
	}
}

// flood sends Starts of different sessions all at once.
func flood(t *testing.T, client *acctclient.Client, sessions int) {
	t.Helper()
	errs := make(chan error, sessions)
	for i := range sessions {
		go func() {
			errs <- client.Account(context.Background(), acctclient.Request{
				Status: rfc2866.AcctStatusType_Value_Start, UserName: "bob@isp.example",
				NASIdentifier: "bng7", SessionID: fmt.Sprint("flood", i),
			})
		}()
	}
	for range sessions {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}
