package conntrack_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/conntrack"
)

// indexOf names the environment variable that makes the test binary index the namespace in
// its value, and print the growth of its memory.
const indexOf = "SESSIOND_TEST_INDEX_OF"

func TestMain(m *testing.M) {
	if name := os.Getenv(indexOf); name != "" {
		if err := growth(name, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// growth prints the resident memory that an index takes, with the garbage of building it,
// and its number of entries.
func growth(name string, to io.Writer) error {
	table, err := conntrack.Open(conntrack.Options{NetNS: name, Inside: []netip.Prefix{insideNet}})
	if err != nil {
		return err
	}
	before, err := resident()
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- table.Run(context.Background()) }()
	select {
	case err := <-failed:
		return err
	case <-table.Ready():
	}
	after, err := resident()
	fmt.Fprintln(to, after-before, table.Total())
	return err
}

// resident returns VmRSS in octets.
func resident() (int, error) {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			var kib int
			_, err := fmt.Sscan(value, &kib)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS")
}

// BenchmarkMemory measures the memory that the index of half a million sessions takes, in a
// process of its own.
func BenchmarkMemory(b *testing.B) {
	const size = 500_000
	l := roomy(b, size)
	sum := 0
	for b.Loop() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), indexOf+"="+l.name)
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		var octets, sessions int
		if _, err := fmt.Sscan(string(out), &octets, &sessions); err != nil || sessions != size {
			b.Fatalf("%q: %v", out, err)
		}
		sum += octets
	}
	b.ReportMetric(float64(sum)/float64(b.N)/size, "B/session")
	b.ReportMetric(0, "ns/op")
}
