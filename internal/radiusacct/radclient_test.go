package radiusacct_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/testenv"
)

// radclient runs FreeRADIUS's client, which verifies the reply itself.
func radclient(t *testing.T, l *lab, command, secret, attributes string) (output string, ok bool) {
	t.Helper()
	testenv.Require(t, testenv.Radclient)
	cmd := exec.Command("radclient", "-x", "-r", "1", "-t", "3", l.addr.String(), command, secret)
	cmd.Stdin = strings.NewReader(attributes + "\n")
	out, err := cmd.CombinedOutput()
	return string(out), err == nil && strings.Contains(string(out), "Received Accounting-Response")
}

func TestRadclient_ACCT01(t *testing.T) {
	l := start(t)
	for i, status := range []string{"Start", "Interim-Update", "Stop", "Accounting-On", "Accounting-Off"} {
		attributes := fmt.Sprintf("Acct-Status-Type = %s, Acct-Session-Id = \"s\", User-Name = \"bob\", "+
			"NAS-IP-Address = 192.0.2.1, Framed-IP-Address = 100.64.0.9, Proxy-State = 0x00ff", status)
		out, ok := radclient(t, l, "acct", secret, attributes)
		if !ok || strings.Count(out, "Proxy-State = 0x00ff") != 2 {
			t.Errorf("%s: %s", status, out)
		}
		if got := len(l.recorder.recorded()); got != i+1 {
			t.Errorf("%s: %d events, want %d", status, got, i+1)
		}
	}
}

func TestRadclientStatus_ACCT18(t *testing.T) {
	l := start(t)
	if out, ok := radclient(t, l, "status", secret, "Message-Authenticator = 0x00"); !ok {
		t.Error(out)
	}
}

func TestRadclientMessageAuthenticator_ACCT17(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) { o.Clients[0].RequireMessageAuthenticator = true })
	attributes := "Acct-Status-Type = Start, Acct-Session-Id = \"s\", Message-Authenticator = 0x00"
	if out, ok := radclient(t, l, "acct", secret, attributes); !ok {
		t.Error(out)
	}
}

func TestRadclientWrongSecret_ACCT03(t *testing.T) {
	l := start(t)
	if out, ok := radclient(t, l, "acct", "wrong", "Acct-Status-Type = Start, Acct-Session-Id = \"s\""); ok {
		t.Error(out)
	}
	l.observer.wait(t, radiusacct.ResultBadAuthenticator, 1)
}
