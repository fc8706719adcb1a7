// Package docs tests that the documentation is true: that all it names exists, and that its
// examples work.
package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/config"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	invariantRow = regexp.MustCompile(`(?m)^\| (I[0-9]+) \|.*\|(.*)\|$`)
	testName     = regexp.MustCompile("`([a-z]+)\\.((?:Test|Benchmark)[A-Za-z0-9_]+)`")
)

// TestInvariantsHaveTests: every invariant of ARCHITECTURE.md names tests, and they exist
// in the named package.
func TestInvariantsHaveTests(t *testing.T) {
	rows := invariantRow.FindAllStringSubmatch(read(t, "ARCHITECTURE.md"), -1)
	if len(rows) != 10 {
		t.Fatalf("%d invariants, want I1 to I10", len(rows))
	}
	for _, row := range rows {
		names := testName.FindAllStringSubmatch(row[2], -1)
		if len(names) == 0 {
			t.Errorf("%s names no test", row[1])
		}
		for _, n := range names {
			if !testExists(t, n[1], n[2]) {
				t.Errorf("%s: package %s has no %s", row[1], n[1], n[2])
			}
		}
	}
}

// TestThreatsHaveTests: every threat of ARCHITECTURE.md names an invariant, or none, and
// tests that exist in the named package.
func TestThreatsHaveTests(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	_, section, _ := strings.Cut(text, "\n## Threats\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 5 || cells[0] == "---" || strings.TrimSpace(cells[0]) == "threat" {
			continue
		}
		rows++
		for _, id := range strings.FieldsFunc(cells[2], func(r rune) bool { return r == ' ' || r == ',' }) {
			if id != "-" && !strings.Contains(text, "\n| "+id+" | ") {
				t.Errorf("%s: there is no invariant %s", cells[0], id)
			}
		}
		names := testName.FindAllStringSubmatch(cells[4], -1)
		if len(names) == 0 {
			t.Errorf("%s: names no test", cells[0])
		}
		for _, n := range names {
			if !testExists(t, n[1], n[2]) {
				t.Errorf("%s: package %s has no %s", cells[0], n[1], n[2])
			}
		}
	}
	if rows < 10 {
		t.Errorf("%d threats, want 10 or more", rows)
	}
}

// TestDocumentsNameTests: the tests and benchmarks that documents name exist in the named
// package.
func TestDocumentsNameTests(t *testing.T) {
	for _, name := range documents(t, "*.md", "docs/*.md", "docs/decisions/*.md") {
		names := testName.FindAllStringSubmatch(read(t, name), -1)
		if len(names) == 0 && name == "docs/security.md" {
			t.Errorf("%s names no test", name)
		}
		for _, n := range names {
			if !testExists(t, n[1], n[2]) {
				t.Errorf("%s: package %s has no %s", name, n[1], n[2])
			}
		}
	}
}

func testExists(t *testing.T, pkg, name string) bool {
	t.Helper()
	for _, dir := range []string{"internal", "internal/*", "test", "cmd"} {
		files, err := filepath.Glob(filepath.Join(root, dir, pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "func "+name+"(") {
				return true
			}
		}
	}
	return false
}

var pure = []string{
	"internal/nat", "internal/subscriber", "internal/lsn", "internal/inspect", "internal/guard", "internal/portuse", "internal/portmap", "internal/reconcile/drift", "internal/lifecycle", "internal/addrtable",
	"internal/prefixtable", "internal/addrrange", "internal/fifo", "internal/arena", "internal/radiusacct/wire",
	"internal/subscriberdb/codec", "internal/rawtext", "internal/measure", "internal/audit", "internal/doctor",
}

// numbers are the foreign packages whose protocol numbers a pure package uses.
var numbers = map[string]string{"internal/radiusacct/wire": "layeh.com/radius"}

// TestPurePackages: the packages that decide import only the standard library and each
// other.
func TestPurePackages(t *testing.T) {
	const module = "github.com/sessiond/sessiond/"
	for _, p := range pure {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./"+p)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
	imports:
		for _, path := range strings.Fields(string(out)) {
			if module := numbers[p]; module != "" && (path == module || strings.HasPrefix(path, module+"/")) {
				continue
			}
			for _, ok := range pure {
				if path == module+ok {
					continue imports
				}
			}
			t.Errorf("%s imports %s", p, path)
		}
	}
}

// TestPackagesAreListed: ARCHITECTURE.md has a row for each package, or for the one whose
// part it is.
func TestPackagesAreListed(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}}", "./internal/...", "./cmd/...", "./test/...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		name := strings.TrimPrefix(p, "github.com/sessiond/sessiond/")
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("%s is not in its table", name)
		}
	}
}

var makeCommand = regexp.MustCompile("(?m)(?:^    |`)make ([a-z0-9-]+)")

// TestCommandsExist: the make targets that the documents name exist.
func TestCommandsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, name := range []string{"README.md", "CONTRIBUTING.md"} {
		for _, m := range makeCommand.FindAllStringSubmatch(read(t, name), -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names `make %s`, which the Makefile does not have", name, m[1])
			}
		}
	}
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestExamplesLoad: the shown configurations can be loaded.
func TestExamplesLoad(t *testing.T) {
	blocks := yamlBlock.FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(blocks) == 0 {
		t.Fatal("README.md shows no configuration")
	}
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "readme.yaml")
		if err := os.WriteFile(file, []byte(b[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := config.Load(file); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := config.Load(filepath.Join(root, "sessiond.example.yaml")); err != nil {
		t.Error(err)
	}
}

// documents returns the names of all documents that match one of the patterns, relative to
// root.
func documents(t *testing.T, patterns ...string) []string {
	t.Helper()
	var names []string
	for _, p := range patterns {
		paths, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		if len(paths) == 0 {
			t.Fatalf("no document matches %s", p)
		}
		for _, path := range paths {
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	return names
}

var (
	link      = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	heading   = regexp.MustCompile(`(?m)^#+ (.+)$`)
	codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	noAnchor  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// TestLinksLead: relative links lead to a file and, if they name one, to a heading of it.
func TestLinksLead(t *testing.T) {
	for _, name := range documents(t, "*.md", "docs/*.md", "docs/decisions/*.md") {
		text := codeBlock.ReplaceAllString(read(t, name), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := name
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(name), m[1])
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if m[2] != "" && !hasHeading(t, target, m[2]) {
				t.Errorf("%s: %s has no heading %s", name, target, m[2])
			}
		}
	}
}

// hasHeading reports whether a document has a heading with that anchor.
func hasHeading(t *testing.T, name, anchor string) bool {
	t.Helper()
	for _, m := range heading.FindAllStringSubmatch(read(t, name), -1) {
		if strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-") == anchor {
			return true
		}
	}
	return false
}

var (
	decisionFile  = regexp.MustCompile(`^([0-9]{4})-[a-z0-9-]+\.md$`)
	decisionTitle = regexp.MustCompile(`\A# ([0-9]{4}) (.+)\n`)
)

// TestDecisions: each decision has its number and title at its top, the required parts in
// their order, and a line in the index; ARCHITECTURE.md leads to it.
func TestDecisions(t *testing.T) {
	const folder = "docs/decisions/"
	index, architecture := read(t, folder+"README.md"), read(t, "ARCHITECTURE.md")
	number := 0
	for _, path := range documents(t, folder+"[0-9]*.md") {
		number++
		file := filepath.Base(path)
		name, text := decisionFile.FindStringSubmatch(file), read(t, path)
		top := decisionTitle.FindStringSubmatch(text)
		if name == nil || top == nil || name[1] != top[1] || top[1] != fmt.Sprintf("%04d", number) {
			t.Errorf("%s: name, or title, does not have number %04d", file, number)
			continue
		}
		var parts []string
		for _, m := range heading.FindAllStringSubmatch(text, -1)[1:] {
			if m[1] != "Measured" {
				parts = append(parts, m[1])
			}
		}
		if got := strings.Join(parts, ", "); got != "Context, Decision, Alternatives, Look again when" {
			t.Errorf("%s: its parts are %s", file, got)
		}
		if row := fmt.Sprintf("| %s | [%s](%s) |", top[1], top[2], file); !strings.Contains(index, row) {
			t.Errorf("%sREADME.md has no row %q", folder, row)
		}
		if item := fmt.Sprintf("[%s](%s)", top[2], folder+file); !strings.Contains(architecture, item) {
			t.Errorf("ARCHITECTURE.md has no link %q", item)
		}
	}
}

var (
	declared  = regexp.MustCompile("`([a-z]+)\\.([A-Z][A-Za-z0-9.]*)`")
	definedIn = regexp.MustCompile(`(?m)^\|.*\| ([^|]*) \|$`)       // the last cell of a row
	meantIn   = regexp.MustCompile("\\(((?:`[a-z/]+`(?:, )?)+)\\)") // packages behind one of two meanings
	folder    = regexp.MustCompile("`([a-z]+(?:/[a-z]+)*)`")
)

// TestGlossaryLeads: the definitions that docs/glossary.md names are declared in their
// packages, and the packages and folders that it names alone exist.
func TestGlossaryLeads(t *testing.T) {
	glossary := read(t, "docs/glossary.md")
	oneMeaning, twoMeanings, _ := strings.Cut(glossary, "\n## Words with two meanings\n")
	folders := 0
	for _, list := range append(definedIn.FindAllStringSubmatch(oneMeaning, -1), meantIn.FindAllStringSubmatch(twoMeanings, -1)...) {
		for _, f := range folder.FindAllStringSubmatch(list[1], -1) {
			folders++
			if !anyExists(f[1], "internal/"+f[1], "internal/*/"+f[1]) {
				t.Errorf("there is no package or folder %s", f[1])
			}
		}
	}
	names := declared.FindAllStringSubmatch(glossary, -1)
	if len(names) < 50 || folders < 100 {
		t.Fatalf("found %d names and %d folders", len(names), folders)
	}
	for _, n := range names {
		sources, err := filepath.Glob(filepath.Join(root, "internal", n[1], "*.go"))
		if nested, _ := filepath.Glob(filepath.Join(root, "internal", "*", n[1], "*.go")); err == nil {
			sources = append(sources, nested...)
		}
		if err != nil || len(sources) == 0 {
			t.Errorf("there is no package %s: %v", n[1], err)
			continue
		}
		var text strings.Builder
		for _, s := range sources {
			b, err := os.ReadFile(s)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b)
		}
		for name := range strings.SplitSeq(n[2], ".") {
			declaration := regexp.MustCompile(`(?m)^(type |func |func \([^)]*\) |\t)` + name + `\b`)
			if !declaration.MatchString(text.String()) {
				t.Errorf("package %s does not declare %s", n[1], name)
			}
		}
	}
}

// anyExists reports whether a file or folder matches one of the patterns.
func anyExists(patterns ...string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		found, _ := filepath.Glob(filepath.Join(root, p))
		return len(found) > 0
	})
}

var pathName = regexp.MustCompile("`((?:api|cmd|deploy|docs|internal|scripts|test)/[A-Za-z0-9_./-]+)`")

// TestDocumentsNamePaths: the folders and files that the documents for developers name
// exist.
func TestDocumentsNamePaths(t *testing.T) {
	for _, name := range documents(t, "*.md", "docs/*.md", "docs/decisions/*.md") {
		if name == "CHANGELOG.md" {
			continue // it describes the past
		}
		for _, m := range pathName.FindAllStringSubmatch(read(t, name), -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

var (
	resultConst = regexp.MustCompile(`(?m)^\tResult\w+ +=\s"(\w+)"`)
	accServRow  = regexp.MustCompile(`(?m)^\| (radiusAccServ\w+) \| (.*) \|$`)
)

// TestRADIUSCounters: docs/metrics.md describes each result of a packet with its counters
// of RFC 4671, and has all of these.
func TestRADIUSCounters(t *testing.T) {
	doc := read(t, "docs/metrics.md")
	counters := map[string]string{}
	sums := ""
	for _, row := range accServRow.FindAllStringSubmatch(doc, -1) {
		counters[row[1]] = row[2]
		sums += row[2]
	}
	for _, name := range []string{
		"Requests", "DupRequests", "Responses", "BadAuthenticators", "MalformedRequests",
		"PacketsDropped", "NoRecords", "UnknownTypes", "TotalInvalidRequests",
	} {
		if counters["radiusAccServ"+name] == "" {
			t.Errorf("radiusAccServ%s is missing", name)
		}
	}
	results := resultConst.FindAllStringSubmatch(read(t, "internal/radiusacct/result.go"), -1)
	if len(results) < 10 {
		t.Fatalf("found %d results", len(results))
	}
	for _, r := range results {
		if !strings.Contains(doc, "\n| `"+r[1]+"` | ") || !strings.Contains(sums, "`"+r[1]+"`") {
			t.Errorf("result %s is not explained, or belongs to no counter", r[1])
		}
	}
}
