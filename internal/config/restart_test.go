package config

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// reloaded are the parts of a Config that a reload applies.
var reloaded = []string{"RADIUS.Clients", "GRPC.Roles", "Groups"}

// TestEveryKeyIsReloadedOrNamed: every change of a configuration is either
// applied by a reload, or named by the one key that changed.
func TestEveryKeyIsReloadedOrNamed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	eachLeaf(reflect.TypeFor[Config](), "", nil, func(path string, index []int) {
		before, after := exampleConfig(t), exampleConfig(t)
		change(t, path, reflect.ValueOf(&after).Elem().FieldByIndex(index))
		named := append(before.NeedRestart(&after), before.FirstValues(&after)...)
		switch {
		case slices.Contains(reloaded, path):
			if len(named) > 0 {
				t.Errorf("%s is taken by a reload, and named as %q", path, named)
			}
		case len(named) != 1:
			t.Errorf("%s is named as %q, want one key", path, named)
		default:
			seen[named[0]] = true
		}
	})
	if all := len(readAtStart) + len(readOnce); len(seen) != all {
		t.Errorf("%d keys were named, there are %d", len(seen), all)
	}
}

// TestNamedKeysExist: every named key is in the reference configuration.
func TestNamedKeysExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../sessiond.example.yaml")
	if err != nil {
		t.Fatal(err)
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
