package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sessiond/sessiond/internal/manpage"
)

// manCommand prints the manual page, which is made of the help of all commands.
func (a *app) manCommand(root *cobra.Command) *cobra.Command {
	var date string
	c := &cobra.Command{
		Use:     "man",
		Short:   "Print the manual page, for man -l",
		Hidden:  true,
		Example: "  sessionctl man | man -l -",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return a.stdout.writeClean([]byte(manualPage(root, date).String()))
		},
	}
	c.Flags().StringVar(&date, "date", "", "`date` of the version, as 2006-01-02")
	complete(c, "date")
	return c
}

func manualPage(root *cobra.Command, date string) *manpage.Page {
	p := manpage.New(manpage.Head{Name: "sessionctl", Section: 1, Summary: "see and steer sessiond", Version: version, Date: date})
	p.Section("SYNOPSIS")
	p.Text("sessionctl [OPTION...] COMMAND")
	p.Section("DESCRIPTION")
	p.Text(root.Long)
	p.Section("OPTIONS")
	flagItems(p, root.PersistentFlags())
	p.Section("COMMANDS")
	for _, c := range root.Commands() {
		commandItems(p, c)
	}
	p.Section("ENVIRONMENT")
	p.Item([]string{addressVariable}, "The address of the daemon, where --addr is not given.")
	p.Item([]string{"NO_COLOR"}, "If it is set, there are no colours.")
	p.Item([]string{"TZ"}, "The time zone of tables.")
	p.Section("SEE ALSO")
	p.Text("sessiond(8), sessiond.yaml(5)")
	return p
}

// commandItems writes the commands from c down that do something.
func commandItems(p *manpage.Page, c *cobra.Command) {
	if c.Hidden || c.Name() == "help" {
		return
	}
	for _, below := range c.Commands() {
		commandItems(p, below)
	}
	if c.HasSubCommands() {
		return
	}
	p.Subsection(strings.TrimPrefix(c.CommandPath(), "sessionctl "))
	p.Lines(strings.TrimSuffix(c.UseLine(), " [flags]"))
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	p.Text(text)
	flagItems(p, c.NonInheritedFlags())
	if c.Example != "" {
		p.Text("For example:")
		p.Lines(strings.Split(c.Example, "\n")...)
	}
}

func flagItems(p *manpage.Page, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		argument, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if argument != "" {
			term += " " + argument
		}
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		p.Item([]string{term}, usage)
	})
}
