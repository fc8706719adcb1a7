package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// rolesDir makes a folder with files that grpc.roles can name.
func rolesDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"panel.token": "panel-token-panel-token\n", "other.token": "other-token-other-token\n", "panel.old": "older-token-older-token\n",
		"short.token": "hunter2\n", "none.token": "\n", "pem": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const overTLS = "tls: {cert_file: pem, key_file: pem, client_ca_file: pem}, "

func TestRoles(t *testing.T) {
	t.Parallel()
	dir := rolesDir(t)
	text := "grpc: {" + overTLS + "call_timeout: 60s, roles: [{role: operator, san: 'spiffe://isp/noc'}, {role: viewer, san: NOC.example.}, {unix_group: noc, role: admin}, " +
		"{token_file: panel.token, role: viewer}, {token_file: panel.old, role: viewer, name: old}]}\n"
	c, warnings, err := Parse(filepath.Join(dir, "test.yaml"), []byte(edit("", text)))
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	want := []GRPCRole{
		{Role: "operator", SAN: "spiffe://isp/noc"},
		{Role: "viewer", SAN: "noc.example"},
		{Role: "admin", UnixGroup: "noc"},
		{Role: "viewer", TokenFile: filepath.Join(dir, "panel.token"), Name: "panel"},
		{Role: "viewer", TokenFile: filepath.Join(dir, "panel.old"), Name: "old"},
	}
	if !reflect.DeepEqual(c.GRPC.Roles, want) {
		t.Errorf("roles %+v, want %+v", c.GRPC.Roles, want)
	}
	if c.GRPC.SocketGroup != "noc" || c.GRPC.LocalRole != "viewer" || c.GRPC.CallTimeout.Seconds() != 60 {
		t.Errorf("gRPC is %+v", c.GRPC)
	}
}

// TestRolesRefused: each mistake in grpc.roles is refused with advice, and
// without the token.
func TestRolesRefused(t *testing.T) {
	t.Parallel()
	dir := rolesDir(t)
	for roles, want := range map[string]string{
		"[]":                               "grpc.roles: is an empty list",
		"[{san: noc.example}]":             "grpc.roles[0].role: is missing",
		"[{role: none, san: noc.example}]": "grpc.roles[0].role: \"none\" is not known; write one of: viewer, operator, admin",
		"[{role: admin}]":                  "grpc.roles[0]: is known by 0 of san, token_file and unix_group; write one of them",
		"[{role: admin, san: noc.example, unix_group: noc}]":                              "grpc.roles[0]: is known by 2 of",
		"[{role: admin, san: '*.example'}]":                                               "grpc.roles[0].san: \"*.example\" wildcards match nothing here; write each name",
		"[{role: admin, san: 192.0.2.1}]":                                                 "grpc.roles[0].san: \"192.0.2.1\" is an IP address",
		"[{role: admin, san: noc.example, name: x}]":                                      "grpc.roles[0].name: is for the holder of a token_file",
		"[{role: admin, unix_group: ''}]":                                                 "grpc.roles[0].unix_group: is empty",
		"[{role: admin, token_file: ''}]":                                                 "grpc.roles[0].token_file: is empty",
		"[{role: admin, token_file: absent}]":                                             "grpc.roles[0].token_file: cannot read",
		"[{role: admin, token_file: none.token}]":                                         "none.token has no token",
		"[{role: admin, token_file: short.token}]":                                        "short.token line 1 has a token of 7 characters",
		"[{role: admin, token_file: panel.token}, {role: viewer, token_file: panel.old}]": "grpc.roles[1].name: panel is that of another token_file",
	} {
		_, _, err := Parse(filepath.Join(dir, "test.yaml"), []byte(edit("", "grpc: {roles: "+roles+"}\n")))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", roles, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("tells a token: %v", err)
		}
	}
}

// TestRolesWarn: roles that nobody can have, and callers that have none or too
// much, cause warnings.
func TestRolesWarn(t *testing.T) {
	t.Parallel()
	dir := rolesDir(t)
	for name, tt := range map[string]struct{ grpc, want string }{
		"certificates without roles":    {strings.TrimSuffix(overTLS, ", "), "grpc.roles: is missing: each certificate of "},
		"a name without certificates":   {"roles: [{role: viewer, san: noc.example}]", "grpc.roles: nobody can show noc.example"},
		"the socket's group":            {"socket_group: noc, roles: [{role: viewer, token_file: panel.token}]", "grpc.socket_group: noc can open the socket and has no role there"},
		"a group beside the socket's":   {"roles: [{role: viewer, unix_group: desk}, {role: admin, unix_group: noc}]", "grpc.roles: members of noc can open the socket only if they are in its group, desk, too"},
		"groups beside the socket's":    {"socket_group: all, roles: [{role: admin, unix_group: noc}]", "members of noc can open the socket only if they are in its group, all, too"},
		"roles in plain text":           {"listen: ':7900', insecure: true, roles: [{role: viewer, token_file: panel.token}]", "grpc.insecure: whoever reaches :7900 has no role there"},
		"tokens over TLS":               {"listen: ':7900', tls: {cert_file: pem, key_file: pem}, roles: [{role: viewer, token_file: panel.token}]", ""},
		"one group":                     {"roles: [{role: viewer, unix_group: desk}]", ""},
		"everybody, without a role":     {"listen: ':7900', insecure_clients: true, tls: {cert_file: pem, key_file: pem}, roles: [{role: viewer, token_file: panel.token}]", ""},
		"loopback callers without role": {"local_role: none", ""},
	} {
		_, warnings, err := Parse(filepath.Join(dir, "test.yaml"), []byte(edit("", "grpc: {"+tt.grpc+"}\n")))
		got := strings.Join(warnings, "\n")
		if err != nil || len(warnings) > 1 || (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: warnings %q, %v, want %q", name, warnings, err, tt.want)
		}
	}
}
