package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// name reads text that is not empty.
func (v value) name(to *string) {
	if s, ok := v.scalar(); ok {
		if strings.TrimSpace(s) == "" {
			v.errorf("is empty; write a name or remove the key")
			return
		}
		*to = s
	}
}

func (v value) oneOf(to *string, allowed ...string) {
	s, ok := v.scalar()
	switch {
	case !ok:
	case !slices.Contains(allowed, s):
		v.errorf("%q is not known; write one of: %s", s, strings.Join(allowed, ", "))
	default:
		*to = s
	}
}

func (v value) boolean(to *bool) {
	s, ok := v.scalar()
	switch {
	case !ok:
	case s == "true":
		*to = true
	case s == "false":
		*to = false
	default:
		v.errorf("%q is neither true nor false", s)
	}
}

func (v value) integer(to *int) bool {
	s, ok := v.scalar()
	if !ok {
		return false
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		v.errorf("%q is not a whole number; write digits alone, such as 100", s)
		return false
	}
	*to = n
	return true
}

// positive reads a whole number of at least 1.
func (v value) positive(to *int) {
	var n int
	switch {
	case !v.integer(&n):
	case n < 1:
		v.errorf("%d is too small; write at least 1", n)
	default:
		*to = n
	}
}

// largestCount is the largest configurable count: the index of sessions counts in 32 bits.
const largestCount = math.MaxInt32

// natural reads a whole number of at least 0.
func (v value) natural(to *int) {
	var n int
	switch {
	case !v.integer(&n):
	case n < 0:
		v.errorf("%d is too small; write at least 0", n)
	case n > largestCount:
		v.errorf("%d is too large; write at most %d", n, largestCount)
	default:
		*to = n
	}
}

// percent reads a share such as 10% as a number from 0 to 1.
func (v value) percent(to *float64) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	number, sign := strings.CutSuffix(s, "%")
	share, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	switch {
	case !sign || err != nil:
		v.errorf("%q is not a share; write it such as 10%%", s)
	case !(share >= 0 && share <= 100): // NaN is neither
		v.errorf("%s is no share; write 0%% to 100%%", s)
	default:
		*to = share / 100
	}
}

func (v value) level(to *slog.Level) {
	var s string
	v.oneOf(&s, "debug", "info", "warn", "error")
	if s != "" {
		_ = to.UnmarshalText([]byte(s)) // each allowed text is a level
	}
}

// duration reads a duration of at least least, in whole seconds.
func (v value) duration(to *time.Duration, least time.Duration) bool {
	s, ok := v.scalar()
	if !ok {
		return false
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		v.errorf("%q is not a duration; write a number with its unit, such as 300s, 45m or 2h", s)
	case d%time.Second != 0:
		v.errorf("%v is not in whole seconds; write %v", d, d.Truncate(time.Second)+time.Second)
	case d < least:
		v.errorf("%v is too short; write at least %v", d, least)
	default:
		*to = d
		return true
	}
	return false
}

// maximum refuses a timer longer than most, and reports whether d is within it.
func (v value) maximum(d, most time.Duration) bool {
	if d > most {
		v.errorf("%v is too long; write at most %v", d, most)
	}
	return d <= most
}

// minimum warns of a timer below the minimum of an RFC.
func (v value) minimum(d, least time.Duration, rfc string) {
	if d < least {
		v.warnf("%v is below the %v of %s", d, least, rfc)
	}
}

// prefix reads an address prefix without host bits; an address alone is a
// prefix of full length.
func (v value) prefix() (netip.Prefix, bool) {
	s, ok := v.scalar()
	if !ok {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		v.errorf("%q is not a prefix; write one such as 192.0.2.0/24", s)
	case p.Addr().Is4In6():
		v.errorf("%v is IPv4 in disguise; write it as IPv4", p)
	case p != p.Masked():
		v.errorf("%v has host bits; did you mean %v?", p, p.Masked())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// listen reads host:port, where the host is an address, localhost or empty.
func (v value) listen(to *string) bool {
	s, ok := v.scalar()
	if !ok {
		return false
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		v.errorf("%q is not host:port; write it such as 127.0.0.1:7900 or [::1]:7900", s)
		return false
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		v.errorf("%q is not an address to listen on", host)
		return false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		v.errorf("%q is not a port; write 1 to 65535, or 0 for any free one", port)
		return false
	}
	*to = s
	return true
}

// privateFile is file with a check that other users cannot read it.
func (v value) privateFile(dir string, to *string) []byte {
	data := v.file(dir, to)
	if data != nil {
		v.report.private = append(v.report.private, *to)
		v.noteReadable(*to)
	}
	return data
}

// noteReadable notes a file with secrets that every user of the machine can
// read.
func (v value) noteReadable(file string) {
	info, err := os.Stat(file)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&othersRead != 0 {
		v.report.exposed = append(v.report.exposed, Problem{v.report.file, v.line, v.key,
			fmt.Sprintf("every user of this machine can read %s, which has secrets; chmod o-rwx it", file)})
	}
}

// othersRead is the permission bit of other users to read a file.
const othersRead = 0o004

// file reads the path of a file, and the file itself, to check that it is
// readable. It returns nil after a problem, and for no path.
func (v value) file(dir string, to *string) []byte {
	s, ok := v.scalar()
	if !ok || s == "" {
		return nil
	}
	if !filepath.IsAbs(s) {
		s = filepath.Join(dir, s)
	}
	*to = s
	data, err := readFile(s, maxSize)
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("it has more than %d KiB", maxSize>>10)
	}
	if err != nil {
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		v.errorf("cannot read %s: %v; check the path and who may read it", s, err)
		return nil
	}
	return data
}
