package manpage

import (
	"regexp"
	"strings"

	"github.com/sessiond/sessiond/internal/config"
)

// Daemon returns sessiond(8), from the answer of sessiond --help.
func Daemon(version, date, help string) *Page {
	p := New(Head{Name: "sessiond", Section: 8, Summary: "carrier-grade NAT tied to the life of the subscriber", Version: version, Date: date})
	p.Section("SYNOPSIS")
	p.Text("sessiond --config FILE [--check [--live [--output text|json]] | --barrier | --removal | --deterministic INSIDE|OUTSIDE:PORT] [--discard-unconfigured]")
	p.Section("DESCRIPTION")
	p.Text(daemonText)
	p.Section("OPTIONS")
	WriteFlags(p, help)
	p.Section("SIGNALS")
	p.Item([]string{"SIGHUP"}, "Read the configuration again, and take its "+list(config.Reloaded())+". No session is lost. Other keys need a restart, which costs no session; the log names those that changed. So it does with roles while keys of grpc that decide who reaches it have changed. A configuration with mistakes, or that cannot be put in force, changes nothing; the log says why. Files of certificates, keys and tokens of gRPC are read again by themselves when they change.")
	p.Item([]string{"SIGTERM", "SIGINT"}, "Answer no more, write all that is under way, leave NAT in place, and exit.")
	p.Section("EXIT STATUS")
	p.Item([]string{"0"}, "Done: stopped by a signal, or the configuration is good.")
	p.Item([]string{"1"}, "It could not start, or could not go on, and the log says why; or --live found something that must be mended.")
	p.Item([]string{"2"}, "Wrong usage, or a mistake in the configuration, named with file, line and key.")
	p.Section("FILES")
	p.Item([]string{"/etc/sessiond/sessiond.yaml"}, "The usual place of the configuration, sessiond.yaml(5).")
	p.Item([]string{"/run/sessiond/grpc.sock"}, "The socket of sessionctl(1), unless the configuration says otherwise.")
	p.Section("SEE ALSO")
	p.Text("sessionctl(1), sessiond.yaml(5), nft(8), conntrack(8), redis-server(1)")
	return p
}

// list joins words as text does.
func list(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

const daemonText = `sessiond is told by RADIUS accounting which subscribers are online, keeps one record of each in
Redis, and gives each a block of ports of a public address, by nftables. When the record is
deleted, by whatever path, the subscriber's NAT sessions end and its ports are free again.

It logs to standard error, and tells systemd when it is ready. Metrics and health are at
http.listen, its control plane is gRPC at grpc.listen and grpc.socket.`

var flagLine = regexp.MustCompile(`^  -([a-z-]+)(?: (\S+))?$`)

// WriteFlags writes the flags that a program of Go's package flag explains.
func WriteFlags(p *Page, help string) {
	var terms []string
	var text []string
	flush := func() {
		if terms != nil {
			p.Item(terms, strings.Join(text, "\n"))
		}
		terms, text = nil, nil
	}
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, "\n")
		if m := flagLine.FindStringSubmatch(line); m != nil {
			flush()
			terms = []string{strings.TrimSpace("--" + m[1] + " " + m[2])}
		} else if terms != nil {
			text = append(text, strings.TrimSpace(line))
		}
	}
	flush()
}

// Configuration returns sessiond.yaml(5), from the reference configuration.
func Configuration(version, date, reference string) *Page {
	p := New(Head{Name: "sessiond.yaml", Section: 5, Summary: "configuration of sessiond", Version: version, Date: date})
	p.Section("DESCRIPTION")
	WriteReference(p, reference)
	p.Section("SEE ALSO")
	p.Text("sessiond(8), sessionctl(1)")
	return p
}
