package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

// Load reads a configuration file and the files that it names. The error is an
// Errors if the file was read but is not valid. Warnings are for the operator;
// the configuration is valid despite them.
func Load(file string) (c Config, warnings []string, err error) {
	data, err := readFile(file, maxSize)
	if err != nil {
		return Config{}, nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(file, data)
}

// Exposed returns a warning for each file with secrets, including the
// configuration itself, that every user of this machine can read. It returns
// none for an invalid file.
func Exposed(file string) []string {
	data, err := readFile(file, maxSize)
	if err != nil {
		return nil
	}
	r := &report{file: file}
	if _, err := r.parse(data); err != nil {
		return nil
	}
	if r.secrets {
		value{report: r, line: 1}.noteReadable(file)
	}
	return texts(r.exposed)
}

// SecretFiles returns the paths of the files with secrets: those that a valid configuration names,
// and the configuration itself where it has any.
func SecretFiles(file string) ([]string, error) {
	data, err := readFile(file, maxSize)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	r := &report{file: file}
	if _, err := r.parse(data); err != nil {
		return nil, err
	}
	if r.secrets {
		return append([]string{file}, r.private...), nil
	}
	return r.private, nil
}

// Parse is Load for the content of a file. The file's name appears in messages,
// and its directory is the base of relative paths in it.
func Parse(file string, data []byte) (c Config, warnings []string, err error) {
	r := &report{file: file}
	c, err = r.parse(data)
	return c, r.warnings(), err
}

func (r *report) parse(data []byte) (Config, error) {
	l := &loader{report: r, dir: filepath.Dir(r.file), config: defaults()}
	if root, ok := r.root(data); ok {
		l.load(root)
	}
	if err := r.errors(); err != nil {
		return Config{}, err
	}
	return l.config, nil
}

// root returns the only document of the file.
func (r *report) root(data []byte) (value, bool) {
	if len(data) > maxSize {
		r.add(1, "", fmt.Sprintf("has more than %d KiB; is it the right file?", maxSize>>10))
		return value{}, false
	}
	tokens := lexer.Tokenize(string(data))
	if !r.checkBounds(tokens) {
		return value{}, false
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, text := 1, err.Error()
		if e := yaml.Error(nil); errors.As(err, &e) {
			line, text = e.GetToken().Position.Line, e.GetMessage()
		}
		r.add(line, "", "not valid YAML: "+text)
		return value{}, false
	}
	root := value{report: r, line: 1}
	docs := 0
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.NullType {
			continue
		}
		if docs++; docs > 1 {
			r.add(d.Body.GetToken().Position.Line, "", "a second YAML document; keep one")
			return value{}, false
		}
		root.node = d.Body
	}
	return root, true
}

// loader fills in a configuration section by section.
type loader struct {
	*report
	dir    string
	config Config

	inside, outside []claim // prefixes of all groups so far
	noNATs          []claim // destinations without NAT of all groups so far
	bounds          []value // names of groups in the clients' bounds
	groupValues     []value // each group in the file
	pcpValue        value   // of pcp in the file
	flowtables      int     // line of nat.flowtables
	httpKeys        map[string]bool
	httpLine        int
}

// defaults returns the configuration of an empty file.
func defaults() Config {
	node, err := os.Hostname()
	if err != nil {
		node = "localhost"
	}
	return Config{
		Node:  node,
		Redis: Redis{URLs: []string{"redis://127.0.0.1:6379/0"}},
		RADIUS: RADIUS{
			Listen: []string{"0.0.0.0:1813"}, StatusServer: true, InferRealms: true,
			RadSec: RadSec{
				Listen: []string{":2083"}, IdleTimeout: 300 * time.Second,
				MaxConnections: 1024, MaxConnectionsPerClient: 16,
			},
		},
		GRPC: GRPC{
			Listen: defaultListen, Socket: DefaultSocket, MaxConnections: 256, MaxConnectionsPerPeer: 32, MaxStreams: 128, MaxStreamsPerPeer: 32,
			StallTimeout: 30 * time.Second, CallTimeout: 10 * time.Minute, LocalRole: "viewer",
		},
		HTTP:    HTTP{Listen: "127.0.0.1:7901"},
		Export:  Export{Interim: 24 * time.Hour, SpoolPath: "/var/spool/sessiond", SpoolSize: 1 << 30},
		History: History{MaxAge: 365 * 24 * time.Hour, Interim: 24 * time.Hour},
		Audit:   Audit{Retention: AuditRetention{Entries: 100_000}},
		NAT:     NAT{Backend: backendNftables, Table: "sessiond", OutsideToOthers: "drop", Flowtables: "refuse", MaxSessionsPerSubscriber: 32768, MaxUngatedSessionsPerSecond: 1000, MaxMappings: 262_144},
		Settings: Settings{
			SubscriberSessionRemoval: removalOn,
			IdleTimeouts: IdleTimeouts{
				TCPEstablished: 7440 * time.Second,
				TCPTransitory:  240 * time.Second,
				UDP:            300 * time.Second,
				ICMP:           60 * time.Second,
			},
		},
		PCP: PCP{Anycast: true},
		Log: Log{Format: "text"},
	}
}

func (l *loader) load(root value) {
	c := &l.config
	keys := root.mapping(fields{
		"node":     func(v value) { v.name(&c.Node) },
		"redis":    l.redis,
		"radius":   l.radius,
		"grpc":     l.grpc,
		"audit":    l.audit,
		"export":   l.export,
		"history":  l.history,
		"http":     l.http,
		"nat":      l.nat,
		"settings": l.settings,
		"groups":   l.groups,
		"pcp":      func(v value) { l.pcpValue = v; l.pcp(v) },
		"log":      l.log,
	})
	root.require(keys, "radius", "groups")
	if !keys["nat"] {
		l.requireInterfaces(root.child("nat"), nil)
	}
	l.checkPrefixes()
	l.checkICMP()
	l.checkSessionLimits()
	l.checkNoNAT()
	l.checkFlowtables()
	l.checkClientGroups()
	l.checkConsole()
	l.checkPCP()
}

func (l *loader) log(v value) {
	v.mapping(fields{
		"level":  func(v value) { v.level(&l.config.Log.Level) },
		"format": func(v value) { v.oneOf(&l.config.Log.Format, "text", "json") },
	})
}
