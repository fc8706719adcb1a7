package facts

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/doctor"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// Options say what to read.
type Options struct {
	File   string         // required: path of the configuration
	Config config.Config  // required: its content
	NAT    nftnat.Options // required, where the backend is nftables: of a start
}

// Read reads all facts. What cannot be read is named in them.
func Read(ctx context.Context, o Options) *doctor.Facts {
	f := &doctor.Facts{Config: plan(&o)}
	if o.Config.NAT.Backend != "memory" {
		readHost(ctx, f, &o)
	}
	if !o.Config.Redis.Embedded {
		var err error
		f.Redis, err = Redis(ctx, o.Config)
		unread(f, "Redis", err)
	}
	readClock(f)
	readFiles(f, o.File)
	return f
}

// unread notes facts that could not be read, if err is one.
func unread(f *doctor.Facts, what string, err error) {
	if err != nil {
		f.Unread = append(f.Unread, doctor.Unread{What: what, Err: err.Error()})
	}
}

func plan(o *Options) doctor.Config {
	c := o.Config
	p := doctor.Config{
		File: o.File, Namespace: c.NAT.NetNS, Inside: c.NAT.InsideInterfaces, Outside: c.NAT.OutsideInterfaces, Flowtables: c.NAT.Flowtables,
		ICMP: c.Settings.ICMP, TCP: c.Settings.TCPEstablished, UDP: c.Settings.UDP,
	}
	for _, g := range c.Groups {
		outside := append(g.Outside[:len(g.Outside):len(g.Outside)], g.Draining...)
		addresses := 0
		for _, prefix := range outside {
			addresses += 1 << (32 - prefix.Bits())
		}
		p.Groups = append(p.Groups, doctor.Group{
			Name: g.Name, Inside: g.Inside, Outside: outside, BlockSize: g.BlockSize,
			Blocks: addresses * ((int(g.LastPort) - int(g.FirstPort) + 1) / g.BlockSize),
		})
		p.ICMP, p.TCP, p.UDP = max(p.ICMP, g.IdleTimeouts.ICMP), max(p.TCP, g.IdleTimeouts.TCPEstablished), max(p.UDP, g.IdleTimeouts.UDP)
	}
	return p
}

// readClock asks the kernel, which knows it from whoever steers the clock (NTP, PTP).
func readClock(f *doctor.Facts) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		unread(f, "the state of the clock", err)
		return
	}
	f.Clock = &doctor.Clock{Synchronized: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0}
}

func readFiles(f *doctor.Facts, file string) {
	secrets, err := config.SecretFiles(file)
	unread(f, "the files with secrets", err)
	seen := map[string]bool{}
	add := func(path string, secret bool) {
		if seen[path] {
			return
		}
		seen[path] = true
		info, err := os.Stat(path)
		if err != nil {
			unread(f, path, err)
			return
		}
		if !info.Mode().IsRegular() {
			return // a pipe of a shell
		}
		f.Files = append(f.Files, doctor.File{Path: path, Mode: info.Mode(), Secret: secret})
	}
	for _, path := range secrets {
		add(path, true)
	}
	add(file, false)
}
