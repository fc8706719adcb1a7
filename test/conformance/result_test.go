package conformance

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestReadOutcomes(t *testing.T) {
	const text = `{"Action":"start","Package":"x/lsn"}
{"Action":"output","Package":"x/lsn","Test":"TestA_NAT01","Output":"hello\n"}
{"Action":"output","Package":"x/lsn","Test":"TestB","Output":"quiet\n"}
{"Action":"fail","Package":"x/lsn","Test":"TestA_NAT01/udp"}
{"Action":"fail","Package":"x/lsn","Test":"TestA_NAT01"}
{"Action":"pass","Package":"x/lsn","Test":"TestB/NAT-02_pools"}
{"Action":"pass","Package":"x/lsn","Test":"TestB/NAT03/slash"}
{"Action":"pass","Package":"x/lsn","Test":"TestB_NAT04/plain"}
{"Action":"pass","Package":"x/lsn","Test":"TestB"}
{"Action":"fail","Package":"x/lsn"}
`
	var log strings.Builder
	got, failed, err := readOutcomes(strings.NewReader(text), &log)
	want := []Outcome{{Package: "lsn", path: "x/lsn", Name: "TestA_NAT01", Action: "fail"}, {Package: "lsn", path: "x/lsn", Name: "TestB/NAT-02_pools", Action: "pass"},
		{Package: "lsn", path: "x/lsn", Name: "TestB/NAT03/slash", Action: "pass"}}
	if err != nil || !failed || !slices.Equal(got, want) {
		t.Errorf("%v, %v, %v, want %v", got, failed, err, want)
	}
	if !strings.Contains(log.String(), "lsn:\nhello\n") || strings.Contains(log.String(), "quiet") {
		t.Errorf("the log has %q, want the output of the test that failed", log.String())
	}
	for broken, want := range map[string]string{
		`{"Action":"build-fail","ImportPath":"x/lsn"}`: "package x/lsn does not build",
		`{"Action":"fail","Package":"x/lsn"}`:          "package x/lsn ended without a result",
		`{"Action":`:                                   "unexpected EOF",
	} {
		if _, _, err := readOutcomes(strings.NewReader(broken), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", broken, err, want)
		}
	}
}

// TestAgain: the second run of what failed counts, and is told.
func TestAgain(t *testing.T) {
	first := []Outcome{
		{Package: "lsn", path: "x/lsn", Name: "TestA_NAT01/case_NAT02", Action: "fail"},
		{Package: "lsn", path: "x/lsn", Name: "TestA_NAT01", Action: "fail"},
		{Package: "lsn", path: "y/lsn", Name: "TestA_NAT01", Action: "pass"},
		{Package: "nat", path: "x/nat", Name: "TestB_NAT03", Action: "fail"},
		{Package: "nat", path: "x/nat", Name: "TestC_NAT03", Action: "pass"},
	}
	tests, packages := failing(first)
	if !slices.Equal(tests, []string{"TestA_NAT01", "TestB_NAT03"}) || !slices.Equal(packages, []string{"x/lsn", "x/nat"}) {
		t.Errorf("again run %q of %q", tests, packages)
	}
	second := []Outcome{
		{Package: "lsn", path: "x/lsn", Name: "TestA_NAT01/case_NAT02", Action: "pass"},
		{Package: "lsn", path: "x/lsn", Name: "TestA_NAT01", Action: "pass"},
		{Package: "nat", path: "x/nat", Name: "TestB_NAT03", Action: "fail"},
	}
	want := []string{"held (when run again: lsn.TestA_NAT01)", "held (when run again: lsn.TestA_NAT01)", "FAILED: nat.TestB_NAT03"}
	for i, r := range Results([]Item{{ID: "NAT-01"}, {ID: "NAT-02"}, {ID: "NAT-03"}}, replace(first, second)) {
		if r.Text() != want[i] {
			t.Errorf("%s is %s, want %s", r.ID, r.Text(), want[i])
		}
	}
}

func TestResults(t *testing.T) {
	outcomes := []Outcome{
		{Package: "lsn", Name: "TestA_NAT01_NAT02", Action: "pass"},
		{Package: "nftnat", Name: "TestB/NAT-01_udp", Action: "pass"},
		{Package: "nftnat", Name: "TestC_NAT02", Action: "fail"},
		{Package: "nftnat", Name: "TestD_NAT03", Action: "skip"},
		{Package: "nftnat", Name: "TestE_NAT04", Action: "pass"},
		{Package: "nftnat", Name: "TestF_NAT07/case_of_its_own", Action: "fail"}, // its function fails too, and counts
	}
	items := []Item{
		{ID: "NAT-01"}, {ID: "NAT-02"}, {ID: "NAT-03"}, {ID: "NAT-04", Deviation: "as RFC 7857 allows"},
		{ID: "NAT-05", Deviation: "nobody asked", Open: true}, {ID: "NAT-06"}, {ID: "NAT-07"},
	}
	want := []string{
		"held [lsn.TestA_NAT01_NAT02 nftnat.TestB]",
		"FAILED: nftnat.TestC_NAT02 [lsn.TestA_NAT01_NAT02 nftnat.TestC_NAT02]",
		"NOT SHOWN (1 skipped) []",
		"deviates: as RFC 7857 allows [nftnat.TestE_NAT04]",
		"open: nobody asked []",
		"NOT SHOWN []",
		"NOT SHOWN []",
	}
	bad := []bool{false, true, true, false, false, true, true}
	for i, r := range Results(items, outcomes) {
		if got := r.Text() + " [" + strings.Join(r.Tests, " ") + "]"; got != want[i] || r.Bad() != bad[i] {
			t.Errorf("%s is %s, bad %t, want %s, %t", r.ID, got, r.Bad(), want[i], bad[i])
		}
	}
}

func TestDocument(t *testing.T) {
	page := Document("Linux 6.1", []Result{
		{Item: Item{ID: "DEL-01", Level: "M", Requirement: "a | b"}, Verdict: Held, Tests: []string{"lsn.TestA", "lsn.TestB"}},
		{Item: Item{ID: "NAT-01", Level: "S", Requirement: "c", Deviation: "d", Open: true}, Verdict: Open},
	})
	for _, want := range []string{
		"Run on Linux 6.1.", "\n## DEL: removal of NAT state\n", "\n## NAT: address translation\n",
		"\n| DEL-01 | M | a \\| b | held | `lsn.TestA`, `lsn.TestB` |\n", "\n| NAT-01 | S | c | open: d | - |\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
}
