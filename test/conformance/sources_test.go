package conformance

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestReadSources(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/a_test.go", "package a\nfunc TestMaps_NAT01_NAT06(t *testing.T) {}\nfunc TestOther(t *testing.T) {}\n")
	write("a/a.go", "package a\nfunc TestNone_NAT02() {}\n")
	write("b/b_test.go", "package b\nfunc TestCases(t *testing.T) { run(`SES-02 twice`, \"not SES-03\") }\nfunc TestPlain(t *testing.T) {}\n")
	write("b/c/table_test.go", "package c\nvar cases = []string{\"SES-04 stop\"}\nfunc TestTable(t *testing.T) {}\n")
	write("test/conformance/own_test.go", "package own\nfunc TestOwn_NAT10(t *testing.T) {}\n")
	write(".git/x_test.go", "package x\nfunc TestHidden_NAT09(t *testing.T) {}\n")

	s, err := ReadSources(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"TestCases", "TestMaps_NAT01_NAT06", "TestTable"}; !slices.Equal(s.Tests, want) {
		t.Errorf("tests are %q, want %q", s.Tests, want)
	}
	if want := []string{"./a", "./b", "./b/c"}; !slices.Equal(s.Packages, want) {
		t.Errorf("packages are %q, want %q", s.Packages, want)
	}
	if want := []string{"NAT-01", "NAT-06", "SES-02", "SES-04"}; !slices.Equal(slices.Sorted(maps.Keys(s.Named)), want) {
		t.Errorf("items are %v, want %v", s.Named, want)
	}
}
