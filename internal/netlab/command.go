package netlab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// Start starts a command in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start)
}

// Output runs a command in the namespace and returns its standard output. The
// error contains its standard error.
func (n *Namespace) Output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := n.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return stdout.Bytes(), fmt.Errorf("%s %s: %w: %s",
			name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// Conntrack returns the connection tracking entries that have the address in
// either direction's tuple, as printed by the conntrack command. The invalid
// address means all entries.
func (n *Namespace) Conntrack(ctx context.Context, addr netip.Addr) ([]string, error) {
	out, err := n.Output(ctx, "conntrack", "-L", "-o", "extended")
	if err != nil {
		return nil, err
	}
	var entries []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && mentions(line, addr) {
			entries = append(entries, line)
		}
	}
	return entries, nil
}

// mentions reports whether a line of conntrack -L has the address as a source
// or destination.
func mentions(line string, addr netip.Addr) bool {
	if !addr.IsValid() {
		return true
	}
	for field := range strings.FieldsSeq(line) {
		if field == "src="+addr.String() || field == "dst="+addr.String() {
			return true
		}
	}
	return false
}

// NftList returns the output of `nft list ruleset` in the namespace.
func (n *Namespace) NftList(ctx context.Context) (string, error) {
	out, err := n.Output(ctx, "nft", "list", "ruleset")
	return string(out), err
}

// NftJSON returns the output of `nft -j list ruleset` in the namespace.
func (n *Namespace) NftJSON(ctx context.Context) ([]byte, error) {
	return n.Output(ctx, "nft", "-j", "list", "ruleset")
}
