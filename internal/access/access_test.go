package access

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestRolesByName(t *testing.T) {
	t.Parallel()
	for _, r := range []Role{None, Viewer, Operator, Admin} {
		if got, err := ParseRole(r.String()); got != r || err != nil {
			t.Errorf("%v is read as %v, %v", r, got, err)
		}
	}
	if _, err := ParseRole("root"); err == nil || !strings.Contains(err.Error(), "operator") {
		t.Errorf("an unknown role: %v", err)
	}
}

// dry is a request that may be a dry run.
type dry bool

func (d dry) GetDryRun() bool { return bool(d) }

// TestAuthorize: a role has the methods of the lesser ones, a dry run only
// reads, and a method without a role is nobody's.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	const reconcile, list = "/sessiond.v1.ControlService/Reconcile", "/sessiond.v1.NasService/ListNases"
	for _, tt := range []struct {
		name    string
		method  string
		request any
		needed  Role
	}{
		{"health", "/grpc.health.v1.Health/Check", nil, None},
		{"a read", list, nil, Viewer},
		{"a read that has no dry run", list, dry(true), Viewer},
		{"a change", reconcile, dry(false), Operator},
		{"a dry run", reconcile, dry(true), Viewer},
		{"pools", "/sessiond.v1.NatService/RemovePool", nil, Admin},
		{"no method", "/sessiond.v1.NatService/ListAll", dry(true), Admin + 1},
		{"a short name", "ListNases", nil, Admin + 1},
	} {
		for _, r := range []Role{None, Viewer, Operator, Admin} {
			err := Authorize(Actor{Name: "user:1", Role: r}, tt.method, tt.request)
			if (err == nil) != (r >= tt.needed) {
				t.Errorf("%s as %v: %v", tt.name, r, err)
			}
			if denied := (*DeniedError)(nil); err != nil && (!errors.As(err, &denied) || denied.Needed != min(tt.needed, Admin)) {
				t.Errorf("%s as %v: %#v", tt.name, r, err)
			}
		}
		if got := Changes(tt.method, tt.request); got != (tt.needed > Viewer) {
			t.Errorf("%s: counts as a change: %v", tt.name, got)
		}
	}
}

func TestDenialSaysWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for r, want := range map[Role]string{
		None:     "user:7 has no role here, and UpdateSettings needs role admin",
		Viewer:   "user:7 may only read here, and UpdateSettings needs role admin",
		Operator: "user:7 has role operator here, and UpdateSettings needs role admin",
	} {
		err := Authorize(Actor{Name: "user:7", Role: r}, "/sessiond.v1.ControlService/UpdateSettings", nil)
		if err == nil || err.Error() != want {
			t.Errorf("%v: %v, want %s", r, err, want)
		}
	}
}

func TestActorInContext(t *testing.T) {
	t.Parallel()
	if a, ok := From(context.Background()); ok {
		t.Errorf("no call has actor %v", a)
	}
	want := Actor{"user:0", Admin, "unix"}
	if got, ok := From(With(context.Background(), want)); !ok || got != want {
		t.Errorf("actor is %v, %v", got, ok)
	}
}

func number(n uint32) *uint32 { return &n }

// tokens reads the tokens of a file.
func tokens(t *testing.T, file string) []Token {
	t.Helper()
	all, err := ParseTokens([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestActorOfCaller: who has which role, with and without grants.
func TestActorOfCaller(t *testing.T) {
	t.Parallel()
	granted := []Grant{
		{Role: Viewer, SAN: "noc.example"},
		{Role: Operator, SAN: "spiffe://isp/noc"},
		{Role: Viewer, SAN: "spiffe://isp/noc"},
		{Role: Viewer, Group: number(100)},
		{Role: Operator, Group: number(101)},
		{Role: Admin, Name: "robot"},
	}
	certified := func(sans ...string) Caller { return Caller{Way: Certificate, SANs: sans, Subject: "CN=x"} }
	over := func(user uint32, groups ...uint32) Caller {
		return Caller{Way: Socket, User: &user, Groups: groups, Source: "unix"}
	}
	for _, tt := range []struct {
		name   string
		caller Caller
		actor  string
		before Role // without grants
		after  Role
	}{
		{"root at the socket", over(0), "user:0", Admin, Admin},
		{"the daemon's user at the socket", over(990), "user:990", Admin, Admin},
		{"a member of a group", over(7, 5, 100), "user:7", Admin, Viewer},
		{"a member of both groups", over(7, 101, 100), "user:7", Admin, Operator},
		{"a member of none", over(7, 5), "user:7", Admin, None},
		{"group 0", over(7, 0), "user:7", Admin, None},
		{"a user whom the kernel does not tell", Caller{Way: Socket, Groups: []uint32{5}}, "local", Admin, None},
		{"a known name", certified("noc.example"), "san:noc.example", Admin, Viewer},
		{"two known names", certified("noc.example", "spiffe://isp/noc"), "", Admin, Operator},
		{"an unknown name", certified("noc.example.net"), "san:noc.example.net", Admin, None},
		{"a name below a known one", certified("a.noc.example", "spiffe://isp/noc/1"), "san:a.noc.example", Admin, None},
		{"a certificate without names", certified(), "subject:CN=x", Admin, None},
		{"root over loopback", Caller{Way: Loopback, User: number(0)}, "user:0", Viewer, Viewer},
		{"somebody over loopback", Caller{Way: Loopback}, "local", Viewer, Viewer},
		{"from anywhere", Caller{Way: Open}, "anonymous", Admin, None},
		{"from anywhere, with what a certificate has", Caller{Way: Open, SANs: []string{"noc.example"}}, "anonymous", Admin, None},
	} {
		policy := Policy{Root: 990, Local: Viewer}
		before := policy.Actor(&tt.caller)
		policy.Given = granted
		after := policy.Actor(&tt.caller)
		if before.Role != tt.before || after.Role != tt.after || tt.actor != "" && (before.Name != tt.actor || after.Name != tt.actor) {
			t.Errorf("%s: %v, with grants %v", tt.name, before, after)
		}
		if after.Source != tt.caller.Source {
			t.Errorf("%s: source %q", tt.name, after.Source)
		}
	}
	if a := (&Policy{Given: granted}).Actor(&Caller{Way: Certificate, SANs: []string{"noc.example", "spiffe://isp/noc"}}); a.Name != "san:spiffe://isp/noc" {
		t.Errorf("the name is %s, not the one that has the role", a.Name)
	}
}

// TestTokenActor: a token counts by itself, and only where nobody else can read
// it.
func TestTokenActor(t *testing.T) {
	t.Parallel()
	const robot, spare, panel = "robot-robot-robot-robot", "spare-spare-spare-spare", "panel-panel-panel-panel"
	policy := Policy{Given: []Grant{
		{Role: Operator, Name: "robot", Tokens: tokens(t, robot+"\n\n"+spare+"\r\n")},
		{Role: Viewer, Name: "panel", Tokens: tokens(t, panel)},
		{Role: Admin, SAN: "noc.example"},
	}}
	for token, want := range map[string]Actor{
		robot: {"token:robot", Operator, "x"}, spare: {"token:robot", Operator, "x"}, panel: {"token:panel", Viewer, "x"}, robot + "x": {},
	} {
		one := tokens(t, token)[0]
		got, err := policy.TokenActor(one, &Caller{Private: true, Source: "x"})
		if got != want || errors.Is(err, ErrTokenUnknown) != (want == Actor{}) {
			t.Errorf("%s is of %v, %v", token, got, err)
		}
		if _, err := policy.TokenActor(one, &Caller{}); !errors.Is(err, ErrTokenExposed) {
			t.Errorf("in plain text: %v", err)
		}
	}
}

func TestParseSAN(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"noc.Example.": "noc.example", "spiffe://isp/NOC": "spiffe://isp/NOC", "urn:uuid:1234": "urn:uuid:1234", "host": "host",
		"": "", "*.example": "", "spiffe://isp/*": "", "192.0.2.1": "", "2001:db8::1": "", "::ffff:192.0.2.1": "", "noc@example.net": "",
		"://isp": "", ":7900": "", "a b": "", "noc.example\n": "", "spiffe://isp/a b": "",
	} {
		got, err := ParseSAN(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
}

// TestSANs: a name of one kind never passes for one of the other.
func TestSANs(t *testing.T) {
	t.Parallel()
	uri, err := url.Parse("spiffe://isp/noc")
	if err != nil {
		t.Fatal(err)
	}
	got := SANs([]*url.URL{uri, {Path: "noc.example"}, {Scheme: "spiffe", Host: "*"}}, []string{"NOC.example", "*.example", "spiffe://isp/admin", "192.0.2.1"})
	if want := []string{"spiffe://isp/noc", "noc.example"}; !slices.Equal(got, want) {
		t.Errorf("names are %q, want %q", got, want)
	}
}

func TestParseTokensRefuses(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("g", leastToken)
	for file, want := range map[string]string{
		"": "has no token", "\n\n": "has no token", "short-secret": "line 1 has a token of 12", good + "\n" + good + " x": "line 2 is no token",
		strings.Repeat("=", 30): "is no token", good + "\x00": "is no token", good + "=x": "is no token",
		strings.Repeat("l", longestToken+1): "at most 512", strings.Repeat(good+"\n", mostTokens+1): "more than 16",
	} {
		_, err := ParseTokens([]byte(file))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", file, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "short-secret") || strings.Contains(err.Error(), good)) {
			t.Errorf("the error has the token: %v", err)
		}
	}
	if all := tokens(t, "abcdefghijklmnopqrstuvwxyz0123456789-._~+/==\n"); len(all) != 1 {
		t.Errorf("%d tokens", len(all))
	}
}

func TestParseBearer(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("g", leastToken)
	want := tokens(t, good)[0]
	for _, header := range []string{"Bearer " + good, "bearer " + good} {
		if got, shown, err := ParseBearer([]string{header}); got != want || !shown || err != nil {
			t.Errorf("%q: %v, %v", header, shown, err)
		}
	}
	for _, headers := range [][]string{
		{""}, {"Bearer"}, {"Bearer "}, {good}, {"Basic " + good}, {"Bearer  " + good}, {"Bearer " + good + " x"}, {"Bearer " + good, "Bearer " + good},
	} {
		if _, shown, err := ParseBearer(headers); !shown || !errors.Is(err, ErrCredentials) {
			t.Errorf("%q: %v, %v", headers, shown, err)
		}
	}
	if _, shown, err := ParseBearer(nil); shown || err != nil {
		t.Errorf("no header: %v, %v", shown, err)
	}
}

// FuzzParseTokens: each token that a file gives is found in a header that shows
// it, and no error quotes the file.
func FuzzParseTokens(f *testing.F) {
	f.Add([]byte("robot-robot-robot-robot\nspare-spare-spare-spare\r\n"))
	f.Add([]byte("short\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		all, err := ParseTokens(file)
		if err != nil {
			return
		}
		for text := range strings.Lines(string(file)) {
			if text = strings.TrimRight(text, "\r\n"); text == "" {
				continue
			}
			got, _, err := ParseBearer([]string{"Bearer " + text})
			if err != nil || !slices.Contains(all, got) {
				t.Errorf("%q is not among the tokens: %v", text, err)
			}
		}
	})
}

// FuzzParseSAN: a name that is read is read as itself again.
func FuzzParseSAN(f *testing.F) {
	for _, name := range []string{"noc.example.", "spiffe://isp/noc", "*.example", "192.0.2.1", "0.0.0.0."} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		san, err := ParseSAN(name)
		if err != nil {
			return
		}
		if again, err := ParseSAN(san); again != san || err != nil {
			t.Errorf("%q is read as %q, and that as %q, %v", name, san, again, err)
		}
	})
}
