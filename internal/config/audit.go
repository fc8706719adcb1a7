package config

import (
	"path/filepath"
	"time"

	"github.com/sessiond/sessiond/internal/audit/sink"
)

// Bounds of audit.retention: entries of a request that may come again are kept, for longer than
// trail.RequestLife.
const (
	leastAuditEntries = 1_000
	leastAuditAge     = time.Hour
)

func (l *loader) audit(v value) {
	c := &l.config.Audit
	v.mapping(fields{
		"file": func(v value) {
			if s, ok := v.scalar(); ok && s != "" {
				if !filepath.IsAbs(s) {
					s = filepath.Join(l.dir, s)
				}
				if err := sink.CheckFile(s); err != nil {
					v.errorf("%v", err)
					return
				}
				c.File = s
			}
		},
		"syslog": func(v value) {
			s, ok := v.scalar()
			if !ok || s == "" {
				return
			}
			if _, err := sink.NewSyslog(s, ""); err != nil {
				v.errorf("%v", err)
				return
			}
			c.Syslog = s
		},
		"retention": func(v value) { l.auditRetention(v, &c.Retention) },
	})
}

func (l *loader) auditRetention(v value, to *AuditRetention) {
	v.mapping(fields{
		"entries": func(v value) {
			var n int
			if v.natural(&n); n != 0 && n < leastAuditEntries {
				v.errorf("%d is too small; write at least %d, or 0 for no bound", n, leastAuditEntries)
				return
			}
			to.Entries = n
		},
		"age": func(v value) {
			var d time.Duration
			if v.duration(&d, 0) && d != 0 && d < leastAuditAge {
				v.errorf("%v is too short; write at least %v, or 0s for no bound", d, leastAuditAge)
				return
			}
			to.Age = d
		},
	})
}
