package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBounds: files that would occupy the parser for minutes are refused at
// once, with the reason.
func TestBounds(t *testing.T) {
	const deep, keys = ":1: is nested more than 32 deep", "more than 1000 keys"
	for _, tt := range []struct{ name, unit, want string }{
		{"brackets", "[", deep},
		{"brackets of many lines", "[\n", ":33: is nested more than 32 deep"},
		{"braces", "{a: ", deep},
		{"both", "[{", deep},
		{"dashes", "- ", deep},
		{"keys", "a: b\n", ":1001: a mapping has more than 1000 keys"},
		{"keys without values", "a:\n", keys},
		{"keys of lists", "a: [\n]\n", keys},
		{"merges", "<<: *a\n", keys},
		{"comments between", "# \na: b\n", keys},
		{"tags", "- !a\n", ":1: has a tag, which is not read here"},
		{"list", "- a: b\n", ":1: is a list; write keys"},
		{"anchors", "- &a\n", "not valid YAML"},
		{"documents", "---\n", "groups: is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Repeat(tt.unit, maxSize/8/len(tt.unit))
			_, _, err := Parse("test.yaml", []byte(text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%.200v, want %s", err, tt.want)
			}
		})
	}
}

// TestBoundsIndented refuses a file of ever deeper keys.
func TestBoundsIndented(t *testing.T) {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	_, _, err := Parse("test.yaml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "test.yaml:33: is nested more than 32 deep") {
		t.Error(err)
	}
}

// TestTooLarge: an endless file, such as a device, is not read to its end.
func TestTooLarge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(file, []byte(strings.Repeat("#", maxSize+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, "/dev/zero"} {
		if _, _, err := Load(name); err == nil || !strings.Contains(err.Error(), name+":1: has more than 512 KiB; is it the right file?") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestManyClients: a configuration for a large network is within the bounds,
// with its lists indented or not.
func TestManyClients(t *testing.T) {
	for _, indent := range []string{"    ", "  "} {
		var b strings.Builder
		for i := range 2000 {
			fmt.Fprintf(&b, "%s- name: bng%d\n%s  prefix: 10.%d.%d.1\n%s  secret: testing123\n", indent, i, indent, i>>8, i&255, indent)
		}
		text := strings.Replace(minimal, "clients:\n", "clients:\n"+b.String(), 1)
		text = strings.Replace(text, "    - name: bng1\n      prefix: 192.0.2.0/24\n      secret: testing123\n", "", 1)
		c, _ := mustParse(t, text)
		if len(c.RADIUS.Clients) != 2000 {
			t.Errorf("%d clients", len(c.RADIUS.Clients))
		}
	}
}

// TestFifoIsNotWaitedFor: a reload that read from a fifo, to which nobody writes, would be the
// last one.
func TestFifoIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"without a writer": false, "with a silent one": true} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "fifo")
			if err := unix.Mkfifo(file, 0o600); err != nil {
				t.Fatal(err)
			}
			if silent {
				f, err := os.OpenFile(file, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
			}
			refused := make(chan error, 1)
			go func() {
				_, _, err := Load(file)
				refused <- err
			}()
			select {
			case err := <-refused:
				if err == nil {
					t.Error("it is taken")
				}
			case <-time.After(20 * time.Second):
				t.Error("it is waited for")
			}
		})
	}
}
