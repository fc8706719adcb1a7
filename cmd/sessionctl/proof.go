package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/history"
)

func (a historyCommands) proofCommand() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "check-proof FILE --key KEY",
		Short: "Check proofs of answers, without a daemon",
		Long: "Check the proofs in FILE, or in the input for -: as binding lookup --proof and history export -o json or\n" +
			"-o csv write them. KEY is the public key of the history, or a file that has it: history verify and the\n" +
			"daemon's log show it. Take it from the operator, and not from the answer. Exit code 1 where a proof is\n" +
			"not of this key, or its record was changed.",
		Example:           "  sessionctl binding lookup 198.51.100.1:1100 --at 2026-03-01T11:30:00Z --proof | sessionctl history check-proof - --key history.pub",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, given []string) error {
			public := key
			if text, err := os.ReadFile(key); err == nil {
				public = strings.TrimSpace(string(text))
			}
			if public == "" {
				return usagef("say by which key: --key KEY")
			}
			text, err := a.readAll(given[0])
			if err != nil {
				return err
			}
			return a.checkProofs(text, public)
		},
	}
	c.Flags().StringVar(&key, "key", "", "the public `key`, or a file that has it")
	return c
}

func (a historyCommands) readAll(name string) (string, error) {
	if name == "-" {
		text, err := io.ReadAll(a.stdin)
		return string(text), err
	}
	text, err := os.ReadFile(name)
	return string(text), err
}

// checkProofs checks each proof in a text, and tells what it proves.
func (a historyCommands) checkProofs(text, public string) error {
	proofs, without := proofsIn(text)
	if len(proofs) == 0 {
		return errors.New("there is no proof: ask with --proof, once the day of the answer is complete")
	}
	for i, proof := range proofs {
		r, err := history.VerifyProof([]byte(proof), public)
		if err != nil {
			return fmt.Errorf("proof %d: %w", i+1, err)
		}
		user := r.Holder.UserName
		if r.Erased {
			user = "somebody whose identity was erased"
		}
		until := "at least until " + utc(r.Through)
		switch {
		case !r.ReleasedBy.IsZero():
			until = "until some time between " + utc(r.Released) + " and " + utc(r.ReleasedBy)
		case !r.Released.IsZero():
			until = "until " + utc(r.Released)
		}
		line := fmt.Sprintf("proved: %s, ports %d-%d, was of %s (inside %s, group %s) from %s %s", r.Outside, r.First, r.Last, user, r.Holder.Inside, r.Group, utc(r.Allocated), until)
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	if without > 0 {
		_, err := fmt.Fprintf(a.stderr, "%s without a proof\n", plural(uint32(without), "answer"))
		return err
	}
	return nil
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// proofsIn returns the proofs in a text, and the number of answers without one: lines of JSON that
// are proofs, or have them, or records of CSV with a column "proof" or "answer.proof".
func proofsIn(text string) (proofs []string, without int) {
	take := func(proof string) {
		if proof == "" {
			without++
			return
		}
		proofs = append(proofs, proof)
	}
	if rows, err := csv.NewReader(strings.NewReader(text)).ReadAll(); err == nil && len(rows) > 1 {
		for i, name := range rows[0] {
			if name == "proof" || name == "answer.proof" {
				for _, row := range rows[1:] {
					take(row[i])
				}
				return proofs, without
			}
		}
	}
	for line := range strings.Lines(text) {
		var found struct {
			Checkpoint, Verdict, Proof string
			Answer                     *struct{ Proof string }
		}
		switch {
		case json.Unmarshal([]byte(line), &found) != nil:
		case found.Checkpoint != "":
			take(line)
		case found.Answer != nil:
			take(found.Answer.Proof)
		case found.Verdict != "":
			take(found.Proof)
		}
	}
	return proofs, without
}

// checkpointsIn returns the signed checkpoints in a text: one, or those of a copy of the audit trail,
// as a file or syslog server has it.
func checkpointsIn(text string) (notes []string) {
	for line := range strings.Lines(text) {
		begin := strings.IndexByte(line, '{')
		if begin < 0 {
			continue
		}
		var copied struct{ Entry audit.Entry }
		if json.Unmarshal([]byte(line[begin:]), &copied) == nil && copied.Entry.Method == history.CheckpointMethod {
			notes = append(notes, copied.Entry.New)
		}
	}
	if len(notes) == 0 && strings.HasPrefix(text, history.CheckpointPrefix) {
		notes = []string{text}
	}
	return notes
}
