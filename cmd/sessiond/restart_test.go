package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

// TestRestartAnswersEveryRequest: a request that is sent while no sessiond runs is answered by
// the next one, without a retransmission, where a service manager keeps the socket.
func TestRestartAnswersEveryRequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	file := smallConfig(t)
	first := exec.CommandContext(t.Context(), os.Args[0], "--config", file)
	first.Env = []string{"NOTIFY_SOCKET=" + path}
	program, log := startCommand(t, first)
	defer log.Close()
	socket := storedBy(t, manager)
	defer socket.Close()
	read, _ := readUntil(log, "msg=ready")
	address := radiusIn(read)
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Fatal(err)
	}

	bng, err := acctclient.Dial(t.Context(), address, "", acctclient.Options{Secret: []byte("testing123"), Timeout: time.Minute, Transmissions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer bng.Close()
	answered := make(chan error, 1)
	go func() {
		answered <- bng.Account(t.Context(), acctclient.Request{
			Status: rfc2866.AcctStatusType_Value_Start, SessionID: "s-1", UserName: "alice", NASIdentifier: "bng1",
			FramedAddress: netip.MustParseAddr("100.64.0.7"), EventTime: time.Now(),
		})
	}()
	awaitDatagram(t, socket)

	// The shell's process becomes the program's, so that LISTEN_PID is right.
	second := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0" --config "$1"`, os.Args[0], file)
	second.Env = []string{"NOTIFY_SOCKET=" + path, "LISTEN_FDS=1", "LISTEN_FDNAMES=" + socket.Name()}
	second.ExtraFiles = []*os.File{socket}
	program, log = startCommand(t, second)
	defer log.Close()
	read, _ = readUntil(log, "msg=ready")
	if again := radiusIn(read); again != address {
		t.Errorf("listens at %s, after %s:\n%s", again, address, strings.Join(read, "\n"))
	}
	if err := <-answered; err != nil {
		t.Errorf("the request: %v", err)
	}
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Error(err)
	}
}

// storedBy waits for the socket that the program hands to the service manager.
func storedBy(t *testing.T, manager *net.UnixConn) *os.File {
	t.Helper()
	if err := manager.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	message, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, rn, _, _, err := manager.ReadMsgUnix(message, rights)
		if err != nil {
			t.Fatal("no socket is stored: ", err)
		}
		_, name, found := strings.Cut(string(message[:n]), "FDNAME=")
		messages, err := unix.ParseSocketControlMessage(rights[:rn])
		if err != nil || !found || len(messages) != 1 {
			continue
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("%q comes with descriptors %v, %v", message[:n], fds, err)
		}
		return os.NewFile(uintptr(fds[0]), name)
	}
}

// awaitDatagram waits until a datagram is in the socket.
func awaitDatagram(t *testing.T, socket *os.File) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(socket.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 10_000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != 1 {
			t.Fatal(fmt.Errorf("no datagram waits in the socket: %w", err))
		}
		return
	}
}

// radiusIn returns the address of RADIUS in a log.
func radiusIn(lines []string) string {
	for _, l := range lines {
		if _, after, ok := strings.Cut(l, "service=radius address="); ok {
			return after
		}
	}
	return ""
}
