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
{"Action":"pass","Package":"x/lsn","Test":"TestB"}
{"Action":"fail","Package":"x/lsn"}
`
	var log strings.Builder
	got, failed, err := readOutcomes(strings.NewReader(text), &log)
	want := []Outcome{{"lsn", "TestA_NAT01", "fail"}, {"lsn", "TestB/NAT-02_pools", "pass"}}
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

func TestResults(t *testing.T) {
	outcomes := []Outcome{
		{"lsn", "TestA_NAT01_NAT02", "pass"},
		{"nftnat", "TestB/NAT-01_udp", "pass"},
		{"nftnat", "TestC_NAT02", "fail"},
		{"nftnat", "TestD_NAT03", "skip"},
		{"nftnat", "TestE_NAT04", "pass"},
		{"nftnat", "TestF_NAT07/case_of_its_own", "fail"}, // its function fails too, and counts
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
