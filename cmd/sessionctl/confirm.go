package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

var (
	errDeclined   = errors.New("nothing was done")
	errNobodyAsks = errors.New("this command asks before it acts, and stdin is no terminal; add --yes")
)

// confirm asks on stderr whether to go on, unless --yes is given. Without a
// terminal it refuses.
func (a *app) confirm(yes bool, question func() (string, error)) error {
	if yes {
		return nil
	}
	if !a.terminal() {
		return errNobodyAsks
	}
	text, err := question()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", text)
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errNobodyAsks
	}
	return errDeclined
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
