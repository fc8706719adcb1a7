package main

import (
	"encoding/csv"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// listedMessages are those of which there are lists.
var listedMessages = []proto.Message{
	&pb.Subscriber{}, &pb.Binding{}, &pb.Session{}, &pb.Removal{}, &pb.SubscriberEvent{}, &pb.Pool{}, &pb.Drift{},
	&pb.Status{}, &pb.Settings{}, &pb.Nas{}, &pb.Mapping{}, &pb.Drop{}, &pb.BlockSizeAdvice{}, &pb.DeleteSubscribersResponse{},
}

// TestFormatsSayTheSame: YAML and CSV have the names and values of the JSON, for any content.
func TestFormatsSayTheSame(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for _, kind := range listedMessages {
		for i := range 300 {
			m := kind.ProtoReflect().New()
			fill(r, m, i%4)
			line, err := (&jsonLines{}).append(nil, m.Interface())
			if err != nil {
				continue // not UTF-8, or no valid time
			}
			var want any
			if err := json.Unmarshal(line, &want); err != nil {
				t.Fatalf("%v: %q", err, line)
			}
			checkYAML(t, m.Interface(), want)
			checkCSV(t, m.Interface(), want.(map[string]any))
		}
	}
}

func checkYAML(t *testing.T, m proto.Message, want any) {
	t.Helper()
	document, err := (&yamlDocuments{}).append(nil, m)
	if err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	var got any
	if err := yaml.Unmarshal(document, &got); err != nil {
		t.Fatalf("%T: %v\n%s", m, err, document)
	}
	if !sameJSON(got, want) {
		t.Fatalf("%T:\n%s\nis not\n%v", m, document, want)
	}
}

func checkCSV(t *testing.T, m proto.Message, want map[string]any) {
	t.Helper()
	e := &csvRecords{}
	text, err := e.append(e.appendHead(nil, m.ProtoReflect().Descriptor()), m)
	if err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	records, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil || len(records) != 2 || strings.Count(string(text), "\r\n") < 2 {
		t.Fatalf("%T: %d records, %v:\n%s", m, len(records), err, text)
	}
	for i, name := range records[0] {
		var value any = want
		for part := range strings.SplitSeq(name, ".") {
			inner, _ := value.(map[string]any)
			value = inner[part]
		}
		cell := ""
		switch v := value.(type) {
		case nil:
		case string:
			cell = cleanCell(harmlessCell(v)) // control characters are never raw
		default:
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if cell = string(b); cell == "[]" || cell == "{}" {
				cell = ""
			}
			if got := records[1][i]; strings.HasPrefix(cell, "[") || strings.HasPrefix(cell, "{") {
				if (got == "") != (cell == "") {
					t.Fatalf("%T.%s is %q, want %q", m, name, got, cell)
				}
				continue // an apostrophe may be within
			}
		}
		if records[1][i] != cell {
			t.Fatalf("%T.%s is %q, want %q", m, name, records[1][i], cell)
		}
	}
}

// sameJSON compares by encoding, in which keys are in order.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// TestYAMLOfPython: a reader of YAML 1.1 takes no text for a number, a time or a truth value.
func TestYAMLOfPython(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Yaml)
	names := []string{"12:30:45", "12:00:00:00:00:07", "yes", "null", "~", "0x1F", "1_000", ".inf", "2026-03-01", "!!python/object:x", "a: b", "- x", "'\"\\", "ü€😀"}
	var text []byte
	var want []string
	for _, name := range names {
		m := &pb.Subscriber{UserName: name, MoreClasses: []string{name}, Binding: &pb.Binding{Blocks: []*pb.PortBlock{{FirstPort: 1}, {LastPort: 2}}}}
		document, err := (&yamlDocuments{}).append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		line, err := (&jsonLines{}).append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		text, want = append(text, document...), append(want, string(line))
	}
	cmd := exec.Command("/usr/bin/python3", "-c", "import json, sys, yaml\nfor d in yaml.safe_load_all(sys.stdin): print(json.dumps(d))")
	cmd.Stdin = strings.NewReader(string(text))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		var got, expected any
		if json.Unmarshal([]byte(line), &got) != nil || json.Unmarshal([]byte(want[i]), &expected) != nil || !sameJSON(got, expected) {
			t.Errorf("%q: python read %s, want %s", names[i], line, want[i])
		}
	}
}

// TestNoFormulas: no cell begins as a formula does, whichever character a spreadsheet takes for the end
// of one.
func TestNoFormulas(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"alice": "alice", "=1+1": "'=1+1", "+49 30": "'+49 30", "@SUM(A1)": "'@SUM(A1)", "-1+cmd|' /C calc'!A0": "'-1+cmd|' /C calc'!A0",
		"a;=1+1": "a;'=1+1", "a\",\"=1": "a\",\"'=1", "a,@x": "a,'@x", "＝1": "'＝1", "+\xff": "'+\xff", "\xff=": "\xff=", " =1": " '=1",
		"-28800s": "'-28800s", "-5": "-5", "+1.5": "+1.5", "a-b@isp=x": "a-b@isp=x", "": "",
	} {
		if got := harmlessCell(name); got != want {
			t.Errorf("%q is written as %q, want %q", name, got, want)
		}
	}
}

// FuzzCSV: a record has its columns whatever a name is, and no cell begins as a formula.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{"alice", "=1", "\"", "\r\n", "a;=b", "\xff", "+\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		e := &csvRecords{}
		d := (&pb.Subscriber{}).ProtoReflect().Descriptor()
		text, err := e.append(e.appendHead(nil, d), &pb.Subscriber{UserName: name, MoreClasses: []string{name}})
		if err != nil {
			return // not UTF-8
		}
		records, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
		if err != nil || len(records) != 2 {
			t.Fatalf("%v: %q", err, text)
		}
		for _, cell := range records[1] {
			if cell != "" && strings.ContainsAny(cell[:1], "=@\t\r") {
				t.Errorf("%q", cell)
			}
		}
	})
}

// TestCSVGolden and its like of YAML are read by people.
func TestFormatsGolden(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"subscriber_list_csv": "subscriber list -o csv", "subscriber_list_none_csv": "subscriber list --user nobody -o csv",
		"binding_list_yaml": "binding list -o yaml", "nas_list_yaml": "nas list --client core -o yaml", "nas_list_csv": "nas list -o csv",
		"pool_advise_yaml": "pool advise -o yaml", "status_yaml": "status -o yaml", "session_count_csv": "session count -o csv",
		"subscriber_list_sorted": "subscriber list --sort -user", "session_list_limit": "session list --limit 1",
		"subscriber_list_wide": "subscriber list -o wide", "nas_list_sorted": "nas list --sort -subscribers --limit 3",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := controltest.Serve(t, controltest.Scene(), nil)
			r := ctl(t, server.Address, "", strings.Fields(line)...)
			golden(t, name, "$ sessionctl "+line+"\n"+strings.ReplaceAll(r.stdout, "\r\n", "\n"), r)
		})
	}
}

// TestColumnsEnd: a message within itself has an end.
func TestColumnsEnd(t *testing.T) {
	t.Parallel()
	var d protoreflect.MessageDescriptor = (&pb.SubscriberEvent{}).ProtoReflect().Descriptor()
	if n := len((&csvRecords{}).columnsOf(d)); n < 20 || n > 200 {
		t.Errorf("%d columns", n)
	}
}
