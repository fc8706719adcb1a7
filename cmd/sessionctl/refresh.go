package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// refreshUsual is --watch without a time.
const refreshUsual = "2s"

// watchFlag adds --watch to a command: it runs again and again.
func (a *app) watchFlag(c *cobra.Command) {
	var every time.Duration
	c.Flags().DurationVar(&every, "watch", 0, "show it anew after each `time`, until interrupted: --watch, --watch=10s")
	c.Flags().Lookup("watch").NoOptDefVal = refreshUsual
	once := c.RunE
	c.RunE = func(c *cobra.Command, given []string) error {
		run := func() error { return once(c, given) }
		if !c.Flags().Changed("watch") {
			return run()
		}
		switch {
		case every < time.Second:
			return usagef("--watch: the time is a second at least")
		case !a.forPeople():
			return usagef("--watch is for tables; a program repeats the command, or reads the events of `sessionctl watch`")
		}
		view := refreshedView{app: a, title: c.CommandPath(), every: every}
		return view.follow(c.Context(), run)
	}
}

// refreshedView shows the output of a command in one place of the terminal, or one after the
// other where there is no terminal.
type refreshedView struct {
	*app
	title string
	every time.Duration
	begun bool
}

// follow shows the output until the context ends. The first failure ends it, a later one is shown:
// a daemon that restarts comes back.
func (v *refreshedView) follow(ctx context.Context, run func() error) error {
	ticks := time.NewTicker(v.every)
	defer ticks.Stop()
	for {
		if err := v.showOnce(ctx, run); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // the normal end
		case <-ticks.C:
		}
	}
}

func (v *refreshedView) showOnce(ctx context.Context, run func() error) error {
	columns, rows := 0, 0
	if v.stdout.size != nil {
		columns, rows = v.stdout.size()
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, "%s, every %s: %s\n\n", v.title, v.every, v.stamp(v.now()))
	err := v.collect(&page, rows, run)
	if ctx.Err() != nil {
		return nil // interrupted while it asked
	}
	var notReady notReadyError
	if err != nil && !errors.Is(err, errEnough) {
		if !v.begun && !errors.As(err, &notReady) {
			return err
		}
		_, message, hint := v.explain(err)
		fmt.Fprintf(&page, "\nsessionctl: %s\n", cleanCell(message))
		if hint != "" {
			fmt.Fprintf(&page, "  %s\n", hint)
		}
	}
	v.begun = true
	if columns == 0 || rows == 0 {
		return v.stdout.writeClean(append(page.Bytes(), '\n'))
	}
	return v.stdout.writeClean(screenful(page.String(), columns, rows))
}

// collect runs the command with its output into a page. It asks for no more rows than a terminal
// has, unless they are sorted.
func (v *refreshedView) collect(page io.Writer, rows int, run func() error) error {
	stdout, stderr, limit := v.stdout.to, v.stderr.to, v.order.limit
	v.stdout.to, v.stderr.to = page, page
	defer func() { v.stdout.to, v.stderr.to, v.order.limit = stdout, stderr, limit }()
	if v.order.by == "" && rows > 0 && (limit == 0 || limit > rows) {
		v.order.limit = rows
	}
	return run()
}

// screenful returns the octets that show the beginning of a page in the place of what the
// terminal shows.
func screenful(page string, columns, rows int) []byte {
	const home, toEndOfLine, toEndOfScreen = "\x1b[H", "\x1b[K", "\x1b[J"
	lines := strings.Split(strings.TrimRight(page, "\n"), "\n")
	screen := []byte(home)
	used := 0
	for i, line := range lines {
		height := 1 + max(textWidth(withoutStyles(line))-1, 0)/columns
		if last := i == len(lines)-1; used+height > rows-1 || !last && used+height > rows-2 {
			screen = append(screen, "(more than the terminal has room for)"+toEndOfLine+"\r\n"...)
			break
		}
		used += height
		screen = append(append(screen, line...), toEndOfLine+"\r\n"...)
	}
	return append(screen, toEndOfScreen...)
}

// withoutStyles returns a line without the escape sequences of its styles.
func withoutStyles(line string) string {
	for {
		begin := strings.Index(line, styleSwitch)
		if begin < 0 {
			return line
		}
		length := strings.IndexByte(line[begin:], 'm')
		if length < 0 {
			return line
		}
		line = line[:begin] + line[begin+length+1:]
	}
}
