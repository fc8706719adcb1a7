package radsec

import (
	"crypto/sha256"
	"crypto/x509"
	"testing"
)

// shown returns the identity of a client with a certificate for DNS names.
func shown(raw string, trusted bool, names ...string) Identity {
	return Identity{Cert: &x509.Certificate{Raw: []byte(raw), DNSNames: names}, Trusted: trusted}
}

func TestTable_RSEC01(t *testing.T) {
	var table Table[string]
	if got, ok := table.Identify(shown("x", true, "a.example")); ok {
		t.Errorf("an empty table has %q", got)
	}
	for client, c := range map[string]Certificate{
		"named":  {SAN: "A.example."},
		"other":  {SAN: "b.example"},
		"pinned": {Fingerprint: sha256.Sum256([]byte("pinned"))},
		"both":   {SAN: "c.example", Fingerprint: sha256.Sum256([]byte("both"))},
	} {
		if err := table.Add(c, client, "value of "+client); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Add(Certificate{SAN: "a.example"}, "second", ""); err == nil {
		t.Error("a name was given twice")
	}
	if err := table.Add(Certificate{Fingerprint: sha256.Sum256([]byte("both"))}, "second", ""); err == nil {
		t.Error("a fingerprint was given twice")
	}
	for _, test := range []struct {
		what string
		who  Identity
		want string
	}{
		{"its name, in a certificate of a CA", shown("x", true, "a.EXAMPLE"), "value of named"},
		{"its name, in a certificate of nobody's", shown("x", false, "a.example"), ""},
		{"its fingerprint", shown("pinned", false), "value of pinned"},
		{"its fingerprint and its name", shown("both", false, "c.example"), "value of both"},
		{"its fingerprint without its name", shown("both", true, "d.example"), ""},
		{"the name of one with a fingerprint", shown("x", true, "c.example"), ""},
		{"names of two clients", shown("x", true, "a.example", "b.example"), ""},
		{"an unknown name besides", shown("x", true, "a.example", "z.example"), "value of named"},
	} {
		if got, ok := table.Identify(test.who); got != test.want || ok != (test.want != "") {
			t.Errorf("%s: %q, %t; want %q", test.what, got, ok, test.want)
		}
	}
}
