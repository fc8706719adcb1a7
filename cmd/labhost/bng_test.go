package main

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
)

const testSecret = "test secret"

// startAnswerer acknowledges accounting requests at the returned address, and
// passes them to got.
func startAnswerer(t *testing.T) (address string, got <-chan *radius.Packet) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests, done := make(chan *radius.Packet, 16), make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		answer(conn, requests)
	}()
	return conn.LocalAddr().String(), requests
}

func answer(conn net.PacketConn, requests chan<- *radius.Packet) {
	buf := make([]byte, radius.MaxPacketLength)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		p, err := radius.Parse(buf[:n], []byte(testSecret))
		if err != nil {
			continue
		}
		reply, err := p.Response(radius.CodeAccountingResponse).Encode()
		if err != nil {
			continue
		}
		_, _ = conn.WriteTo(reply, from)
		requests <- p
	}
}

func TestBNGReports(t *testing.T) {
	t.Parallel()
	for verb, status := range statuses {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			server, requests := startAnswerer(t)
			args := []string{"bng", verb, "--server", server, "--secret", testSecret, "--nas", "bng7",
				"--user", "alice", "--session", "s1", "--address", "100.64.0.10"}
			if err := run(t.Context(), args, io.Discard); err != nil {
				t.Fatal(err)
			}
			p := <-requests
			if got := rfc2866.AcctStatusType_Get(p); got != status {
				t.Errorf("status %v, want %v", got, status)
			}
			if got := rfc2865.FramedIPAddress_Get(p).String(); got != "100.64.0.10" {
				t.Errorf("address %s", got)
			}
			user, nas, session := rfc2865.UserName_GetString(p), rfc2865.NASIdentifier_GetString(p), rfc2866.AcctSessionID_GetString(p)
			if user != "alice" || nas != "bng7" || session != "s1" {
				t.Errorf("user %q, nas %q, session %q", user, nas, session)
			}
		})
	}
}

func TestBNGTellsOfSilence(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	args := []string{"bng", "start", "--server", silent.LocalAddr().String(), "--secret", testSecret,
		"--timeout", "1ms", "--tries", "2"}
	if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), "no reply") {
		t.Errorf("error is %v", err)
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"bng", "restart"},
		{"bng", "start", "--address", "nowhere"},
		{"route", "--route", "203.0.113.0/24"},
		{"route", "--address", "100.64.0.10"},
		{"route", "--name", "eth0=s0"},
		{"internet", "--echo", "203.0.113.1"},
		{"host"},
	} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("labhost %s: no error", strings.Join(args, " "))
		}
	}
}

func TestAddressFlag(t *testing.T) {
	t.Parallel()
	var addr netip.Addr
	f := addressFlag{&addr}
	if got := f.String(); got != "" {
		t.Errorf("unset flag prints %q", got)
	}
	if err := f.Set("100.64.0.10"); err != nil || f.String() != "100.64.0.10" {
		t.Errorf("set flag prints %q, %v", f.String(), err)
	}
}
