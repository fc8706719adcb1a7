// Command write writes the manual pages of sessiond and its configuration.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sessiond/sessiond/internal/manpage"
)

func main() {
	daemon := flag.String("sessiond", "bin/sessiond", "the sessiond `PROGRAM`")
	reference := flag.String("reference", "sessiond.example.yaml", "the reference configuration, a `FILE`")
	folder := flag.String("o", "bin/man", "`FOLDER` of the pages")
	version := flag.String("version", "unknown", "`VERSION` of the programs")
	date := flag.String("date", "", "`DATE` of the version, as 2006-01-02")
	flag.Parse()
	if err := write(*daemon, *reference, *folder, *version, *date); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(daemon, reference, folder, version, date string) error {
	help, err := exec.Command(daemon, "--help").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s --help: %w", daemon, err)
	}
	keys, err := os.ReadFile(reference)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, page := range map[string]*manpage.Page{
		"sessiond.8":      manpage.Daemon(version, date, string(help)),
		"sessiond.yaml.5": manpage.Configuration(version, date, string(keys)),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(page.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
