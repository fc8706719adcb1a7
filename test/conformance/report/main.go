// Command report runs the tests that name items of the conformance checklist, and prints each
// item with its requirement, and its result or the reason for a deviation. What failing tests
// print goes to the error output. With -o it writes the table as a document too. It ends with
// 1 if an item is neither held nor excused.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"text/tabwriter"

	"github.com/sessiond/sessiond/test/conformance"
)

func main() {
	document := flag.String("o", "", "write the table to this Markdown file too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	bad, err := report(ctx, os.Stdout, os.Stderr, *document)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	case bad > 0:
		fmt.Fprintf(os.Stderr, "conformance: %d items are neither held nor excused\n", bad)
		os.Exit(1)
	}
}

// report runs the tests of the module in the present folder, and returns the number of items
// that are neither held nor excused.
func report(ctx context.Context, out, log io.Writer, document string) (bad int, err error) {
	items, err := conformance.Items()
	if err != nil {
		return 0, fmt.Errorf("checklist: %w", err)
	}
	sources, err := conformance.ReadSources(".")
	if err != nil {
		return 0, err
	}
	outcomes, err := conformance.Run(ctx, ".", sources, log)
	if err != nil {
		return 0, err
	}
	on, err := platform(ctx)
	if err != nil {
		return 0, err
	}
	results := conformance.Results(items, outcomes)
	for i := range results {
		if results[i].Bad() {
			bad++
		}
	}
	if err := printTable(out, on, results); err != nil || document == "" {
		return bad, err
	}
	return bad, os.WriteFile(document, []byte(conformance.Document(on, results)), 0o644)
}

func printTable(out io.Writer, on string, results []conformance.Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, on)
	fmt.Fprintln(w, "ID\tLEVEL\tREQUIREMENT\tTESTS\tRESULT")
	for i := range results {
		r := &results[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", r.ID, r.Level, r.Requirement, len(r.Tests), r.Text())
	}
	return w.Flush()
}

// platform returns the versions of the kernel and of the programs that the tests ran with.
func platform(ctx context.Context) (string, error) {
	var parts []string
	for _, c := range []struct {
		name string
		args []string
		word int // of its output
	}{
		{"Linux", []string{"uname", "-r"}, 0},
		{"nft", []string{"nft", "--version"}, 1},
		{"Redis", []string{"redis-server", "--version"}, 2},
		{"Go", []string{"go", "env", "GOVERSION"}, 0},
	} {
		out, err := exec.CommandContext(ctx, c.args[0], c.args[1:]...).Output()
		words := strings.Fields(string(out))
		if err != nil || len(words) <= c.word {
			return "", fmt.Errorf("version of %s: %s: %v", c.name, out, err)
		}
		parts = append(parts, c.name+" "+strings.TrimLeft(words[c.word], "vgo="))
	}
	return strings.Join(parts, ", "), nil
}
