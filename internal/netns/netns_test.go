package netns_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/testenv"
)

func TestPath(t *testing.T) {
	for name, want := range map[string]string{
		"":                    "/proc/thread-self/ns/net",
		"cgn":                 "/run/netns/cgn",
		"/proc/1/ns/net":      "/proc/1/ns/net",
		"./relative/to/where": "./relative/to/where",
	} {
		if got := netns.Path(name); got != want {
			t.Errorf("Path(%q) = %s, want %s", name, got, want)
		}
	}
}

func TestOwnNamespace(t *testing.T) {
	ns, err := netns.Open("")
	if err != nil || ns.FD() != 0 {
		t.Fatalf("descriptor %d, %v", ns.FD(), err)
	}
	called := errors.New("called")
	if err := ns.Do(func() error { return called }); !errors.Is(err, called) {
		t.Errorf("Do = %v", err)
	}
	if err := errors.Join(ns.Check(), ns.Close()); err != nil {
		t.Error(err)
	}
}

func TestNoSuchNamespace(t *testing.T) {
	if _, err := netns.Open("sd-no-such-namespace"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v", err)
	}
}

// TestDo: fn runs inside the namespace, and no thread stays there.
func TestDo(t *testing.T) {
	testenv.Require(t, testenv.Root)
	name, path := conntracktest.Namespace(t)
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var inside string
	var links []net.Interface
	for range 20 {
		err := ns.Do(func() (err error) {
			if inside, err = os.Readlink("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			links, err = net.Interfaces()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if inside == own || len(links) != 1 {
		t.Errorf("%s has %d interfaces, the own namespace is %s", inside, len(links), own)
	}
	threads, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, thread := range threads {
		if now, err := os.Readlink(thread); err == nil && now != own {
			t.Errorf("%s is in %s", thread, now)
		}
	}
	if netns.Path(name) != path {
		t.Errorf("%s is at %s", name, path)
	}
}

// TestCheck deletes a namespace, and makes another one of its name.
func TestCheck(t *testing.T) {
	testenv.Require(t, testenv.Root)
	name, _ := conntracktest.Namespace(t)
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Check(); err != nil {
		t.Error(err)
	}
	conntracktest.Command(t, "ip", "netns", "del", name)
	if err := ns.Check(); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrReplaced) {
		t.Errorf("deleted: %v", err)
	}
	conntracktest.Command(t, "ip", "netns", "add", name)
	if err := ns.Check(); !errors.Is(err, netns.ErrReplaced) {
		t.Errorf("made anew: %v", err)
	}
}

// TestScratch: the namespace is a new one, and gone afterwards.
func TestScratch(t *testing.T) {
	testenv.Require(t, testenv.Root)
	failed := errors.New("failed")
	var path string
	err := netns.Scratch(func(p string) error {
		path = p
		ns, err := netns.Open(p)
		if err != nil {
			return err
		}
		defer ns.Close()
		err = ns.Do(func() error {
			links, err := net.Interfaces()
			if err == nil && (len(links) != 1 || links[0].Name != "lo") {
				t.Errorf("interfaces: %v", links)
			}
			return err
		})
		return errors.Join(err, failed)
	})
	if err == nil || err.Error() != failed.Error() {
		t.Errorf("Scratch = %v", err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the namespace's end", func() bool {
		now, err := os.Readlink(path)
		return err != nil || now == own
	})
}
