package config

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestEveryKeyIsReloadedOrNamed: every change of a configuration is either
// applied by a reload, or named by the one key that changed.
func TestEveryKeyIsReloadedOrNamed(t *testing.T) {
	t.Parallel()
	seen, reloaded := map[string]bool{}, 0
	eachLeaf(reflect.TypeFor[Config](), "", nil, func(path string, index []int) {
		before, after := exampleConfig(t), exampleConfig(t)
		change(t, path, reflect.ValueOf(&after).Elem().FieldByIndex(index))
		named := append(before.NeedRestart(&after), before.FirstValues(&after)...)
		switch {
		case slices.Contains(Reloaded(), strings.ToLower(path)):
			reloaded++
			if len(named) > 0 {
				t.Errorf("%s is taken by a reload, and named as %q", path, named)
			}
		case len(named) != 1:
			t.Errorf("%s is named as %q, want one key", path, named)
		default:
			seen[named[0]] = true
		}
	})
	if reloaded != len(Reloaded()) {
		t.Errorf("%d parts are taken by a reload, Reloaded has %q", reloaded, Reloaded())
	}
	if all := len(readAtStart) + len(readOnce); len(seen) != all {
		t.Errorf("%d keys were named, there are %d", len(seen), all)
	}
}

// TestRolesNeedRestart: roles wait for a restart where the listeners in force are others
// than those that they were checked with.
func TestRolesNeedRestart(t *testing.T) {
	t.Parallel()
	roles := func(c *Config) { c.GRPC.Roles = []GRPCRole{{Role: "viewer", UnixGroup: "noc"}} }
	none := func(c *Config) { c.GRPC.Roles = nil }
	for name, tt := range map[string]struct {
		before, after func(*Config)
		change        func(*Config)
		want          []string
	}{
		"roles alone":      {roles, none, func(*Config) {}, nil},
		"the same roles":   {roles, roles, func(c *Config) { c.GRPC.Listen = "127.0.0.1:1" }, nil},
		"no roles as ever": {none, none, func(c *Config) { c.GRPC.Listen = "127.0.0.1:1" }, nil},
		"other sections":   {roles, none, func(c *Config) { c.HTTP.Listen, c.GRPC.MaxStreams = "127.0.0.1:1", 1 }, nil},

		"listener":        {roles, none, func(c *Config) { c.GRPC.Listen = "127.0.0.1:1" }, []string{"grpc.listen"}},
		"first roles":     {none, roles, func(c *Config) { c.GRPC.TLS = TLS{"c", "k", "ca"} }, []string{"grpc.tls.cert_file", "grpc.tls.client_ca_file", "grpc.tls.key_file"}},
		"permissions":     {roles, none, func(c *Config) { c.GRPC.Insecure, c.GRPC.InsecureClients = true, true }, []string{"grpc.insecure", "grpc.insecure_clients"}},
		"local role":      {roles, none, func(c *Config) { c.GRPC.LocalRole = "none" }, []string{"grpc.local_role"}},
		"sockets":         {roles, none, func(c *Config) { c.GRPC.Socket, c.GRPC.SocketGroup = "/x", "ops" }, []string{"grpc.socket", "grpc.socket_group"}},
		"socket's group":  {roles, none, func(c *Config) { c.GRPC.SocketGroup = "" }, []string{"grpc.socket_group"}},
		"by socket group": {none, roles, func(c *Config) { c.GRPC.SocketGroup = "" }, nil},
	} {
		before, after := exampleConfig(t), exampleConfig(t)
		before.GRPC.SocketGroup, after.GRPC.SocketGroup = "noc", "noc"
		tt.before(&before)
		tt.after(&after)
		tt.change(&after)
		if got := before.RolesNeedRestart(&after); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	for _, key := range reachKeys {
		if readAtStart[key] == nil {
			t.Errorf("%s is no key that is read at the start", key)
		}
	}
}

// TestNamedKeysExist: every named key is in the reference configuration, and the documents tell
// which ones a reload applies.
func TestNamedKeysExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../sessiond.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range []string{"../../sessiond.example.yaml", "../../README.md"} {
		told, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		_, told, _ = bytes.Cut(told, []byte("SIGHUP reloads"))
		told, _, _ = bytes.Cut(told, []byte("restart"))
		for _, key := range Reloaded() {
			if !bytes.Contains(told, []byte(key)) {
				t.Errorf("%s does not tell that SIGHUP reloads %s", document, key)
			}
		}
	}
	for _, keys := range []map[string]func(*Config) any{readAtStart, readOnce} {
		for key := range keys {
			if last := key[strings.LastIndex(key, ".")+1:]; !strings.Contains(string(text), last+":") {
				t.Errorf("%s: the reference configuration has no %s", key, last)
			}
		}
	}
}

func exampleConfig(t *testing.T) Config {
	t.Helper()
	c, _, err := Load("../../sessiond.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eachLeaf yields every field that is no struct, by its path and index.
func eachLeaf(of reflect.Type, path string, index []int, yield func(path string, index []int)) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, at := path+f.Name, append(slices.Clone(index), i)
		if f.Type.Kind() == reflect.Struct {
			eachLeaf(f.Type, name+".", at, yield)
			continue
		}
		yield(name, at)
	}
}

func change(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	default:
		t.Fatalf("%s is %s: say how to change it", path, v.Kind())
	}
}
