package config

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/natlog"
)

// Bounds of export.
const (
	mostSpoolSize = 1 << 40
	mostBatch     = 10_000
)

// export reads the collectors of the NAT log.
func (l *loader) export(v value) {
	c := &l.config.Export
	v.mapping(fields{
		"ipfix": func(v value) {
			l.collectors(v, natlog.IPFIX, "collector", func(c *Collector) fields {
				return fields{
					"observation_domain": func(v value) { readNumber(v, &c.Domain) },
					"template_interval":  func(v value) { v.duration(&c.TemplateInterval, time.Second) },
					"user_name": func(v value) {
						var how string
						v.oneOf(&how, "variable", "fixed")
						c.FixedNames = how == "fixed"
					},
				}
			})
		},
		"netflow9": func(v value) {
			l.collectors(v, natlog.NetFlow9, "collector", func(c *Collector) fields {
				return fields{
					"source_id":         func(v value) { readNumber(v, &c.Domain) },
					"template_interval": func(v value) { v.duration(&c.TemplateInterval, time.Second) },
				}
			})
		},
		"syslog": func(v value) {
			l.collectors(v, natlog.Syslog, "collector", func(c *Collector) fields {
				return fields{"pen": func(v value) { readNumber(v, &c.PEN) }}
			})
		},
		"http": func(v value) {
			l.collectors(v, natlog.HTTP, "url", func(c *Collector) fields {
				return fields{"batch": func(v value) {
					var n int
					if v.natural(&n); n > mostBatch {
						v.errorf("%d is too large; write at most %d", n, mostBatch)
						return
					}
					c.Batch = n
				}}
			})
		},
		"interim_interval": func(v value) { v.duration(&c.Interim, time.Minute) },
		"spool": func(v value) {
			v.mapping(fields{
				"path": func(v value) {
					if s, ok := v.scalar(); ok && s == "" {
						v.errorf("is empty; write a directory")
						return
					}
					l.path(v, &c.SpoolPath)
				},
				"size": func(v value) { readSize(v, &c.SpoolSize) },
			})
		},
	})
}

// path reads a path, which is beside the file unless it is absolute; "" stays.
func (l *loader) path(v value, to *string) {
	s, ok := v.scalar()
	if ok && s != "" && !filepath.IsAbs(s) {
		s = filepath.Join(l.dir, s)
	}
	if ok {
		*to = s
	}
}

// collectors reads the collectors of one protocol. address is the key of its address.
func (l *loader) collectors(v value, p natlog.Protocol, address string, more func(*Collector) fields) {
	for _, v := range v.sequence() {
		c := Collector{Protocol: p}
		known := more(&c)
		known[address] = func(v value) {
			s, ok := v.scalar()
			if !ok {
				return
			}
			if err := natlog.CheckTarget(p, s); err != nil {
				v.errorf("%v", err)
				return
			}
			c.Target = s
		}
		v.require(v.mapping(known), address)
		for _, x := range l.config.Export.Collectors {
			if x.Protocol == p && natlog.TargetName(p, x.Target) == natlog.TargetName(p, c.Target) {
				v.child(address).errorf("%s is there twice; keep one", c.Target)
			}
		}
		if c.Target != "" {
			l.config.Export.Collectors = append(l.config.Export.Collectors, c)
		}
	}
}

// readNumber reads a number of 32 bits.
func readNumber(v value, to *uint32) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		v.errorf("%q is not a number from 0 to 4294967295", s)
		return
	}
	*to = uint32(n)
}

// sizeUnits are the units of sizes.
var sizeUnits = []struct {
	name   string
	octets int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// readSize reads a number of octets such as 1GiB.
func readSize(v value, to *int64) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	digits, unit := s, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = strings.TrimSpace(rest), u.octets
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case err != nil || n < 0 || n > mostSpoolSize/unit:
		v.errorf("%q is not a size up to 1TiB; write a number with its unit, such as 512MiB or 1GiB", s)
	case n*unit < natlog.LeastSpool:
		v.errorf("%s is too small; write at least 1MiB", s)
	default:
		*to = n * unit
	}
}
