package facts_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/doctor"
	"github.com/sessiond/sessiond/internal/doctor/facts"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestRedis: each setting of a real Redis that is not as sessiond needs it is found, and the
// command of the finding mends it.
func TestRedis(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		acl  string // rules of the user, beside +@all ~* &*
		want []string
	}{
		"safe":          {args: []string{"--appendonly", "yes"}},
		"evicts":        {args: []string{"--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"}, want: []string{"redis-eviction"}},
		"is full":       {args: []string{"--appendonly", "yes", "--maxmemory", "1mb"}, want: []string{"redis-eviction"}},
		"keeps little":  {args: []string{"--save", "60", "1"}, want: []string{"redis-persistence"}},
		"keeps nothing": {args: []string{"--maxmemory-policy", "volatile-ttl"}, want: []string{"redis-persistence", "redis-eviction"}},
		"writes late":   {args: []string{"--appendonly", "yes", "--appendfsync", "no"}, want: []string{"redis-persistence"}},
		"no notices":    {args: []string{"--appendonly", "yes"}, acl: "-config|set", want: []string{"redis-notifications"}},
		"other notices": {args: []string{"--appendonly", "yes", "--notify-keyspace-events", "Kl"}, acl: "-config|set", want: []string{"redis-notifications"}},
		"notices":       {args: []string{"--appendonly", "yes", "--notify-keyspace-events", "AE"}, acl: "-config|set"},
		"no settings":   {args: []string{"--appendonly", "yes"}, acl: "-config", want: []string{"redis-notifications"}},
		"a command":     {args: []string{"--appendonly", "yes"}, acl: "-xadd", want: []string{"redis-rights"}},
		"a key":         {args: []string{"--appendonly", "yes"}, acl: "resetkeys ~sessiond:{default}:*", want: []string{"redis-rights"}},
		"a trail":       {args: []string{"--appendonly", "yes"}, acl: "resetkeys ~sessiond:*", want: []string{"redis-rights"}},
		"a channel":     {args: []string{"--appendonly", "yes"}, acl: "resetchannels", want: []string{"redis-rights"}},
		"transactions":  {args: []string{"--appendonly", "yes"}, acl: "-multi", want: []string{"redis-rights"}},
		"of docs":       {args: []string{"--appendonly", "yes"}, acl: "reset on >pw " + rightsInHandbook(t)},
		"facts":         {args: []string{"--appendonly", "yes"}, acl: "-info -time -ping", want: []string{"redis-rights"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.StartRedis(t, tt.args...)
			run := func(args ...string) {
				t.Helper()
				if out, err := server.CLI(t.Context(), args...); err != nil || strings.Contains(out, "ERR") {
					t.Fatalf("%q: %v: %s", args, err, out)
				}
			}
			run(append([]string{"ACL", "SETUSER", "it", "on", ">pw", "+@all", "~*", "&*"}, strings.Fields(tt.acl)...)...)
			c := config.Config{Node: "n", Redis: config.Redis{URLs: []string{"unix://it:pw@" + server.Socket}}, Groups: []config.Group{{Name: "default"}}}
			examine := func() []doctor.Finding {
				t.Helper()
				servers, err := facts.Redis(t.Context(), c)
				if err != nil || len(servers) != 1 {
					t.Fatalf("%+v, %v", servers, err)
				}
				return doctor.ExamineRedis(servers)
			}
			found := examine()
			var checks []string
			for _, f := range found {
				checks = append(checks, f.Check)
				if strings.Contains(fmt.Sprint(f), "pw") {
					t.Errorf("%+v has the password", f)
				}
			}
			if !slices.Equal(checks, tt.want) {
				t.Fatalf("found %+v, want %q", found, tt.want)
			}
			for range 4 { // one finding may hide another
				for _, f := range found {
					if out, err := exec.CommandContext(t.Context(), "sh", "-c", f.Command).CombinedOutput(); err != nil || bytes.Contains(out, []byte("ERR")) {
						t.Fatalf("%s: %v: %s", f.Command, err, out)
					}
				}
				if found = examine(); len(found) == 0 {
					return
				}
			}
			t.Errorf("%+v are left", found)
		})
	}
}

// rightsInHandbook returns the rules that docs/operations.md says suffice.
func rightsInHandbook(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, ok := strings.Cut(string(text), "ACL SETUSER sessiond on '>a-long-random-password' ")
	if !ok {
		t.Fatal("docs/operations.md has no user of Redis")
	}
	rules, _, _ = strings.Cut(rules, "\n")
	return strings.ReplaceAll(rules, "'", "")
}

// TestNoRedis: a server that is not there is a finding with its address, and without the password.
func TestNoRedis(t *testing.T) {
	t.Parallel()
	for url, address := range map[string]string{
		"redis://it:pw@127.0.0.1:1/0": "127.0.0.1:1", "unix://it:pw@/nonexistent/r.sock": "/nonexistent/r.sock",
	} {
		for _, mode := range []string{"", "cluster"} {
			if mode != "" && strings.HasPrefix(url, "unix") {
				continue
			}
			ctx, cancel := context.WithCancel(t.Context())
			servers, err := facts.Redis(ctx, config.Config{Node: "n", Redis: config.Redis{URLs: []string{url}, Mode: mode}, Groups: []config.Group{{Name: "default"}}})
			cancel()
			if err != nil || len(servers) != 1 || servers[0].Address != address || servers[0].Err == "" || strings.Contains(servers[0].Err, "pw") {
				t.Errorf("%s %s: %+v, %v", mode, url, servers, err)
			}
		}
	}
}
