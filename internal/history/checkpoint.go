package history

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The first lines of checkpoints, before the group.
const (
	originDay = CheckpointPrefix + "day/"
	originLog = CheckpointPrefix + "log/"
)

// CheckpointPrefix is the beginning of each checkpoint.
const CheckpointPrefix = "sessiond.history."

// CheckpointMethod is the method of audit entries that have the checkpoint of a running log as their
// new state.
const CheckpointMethod = "SignHistory"

// microFormat is RFC 3339 in UTC with microseconds.
const microFormat = "2006-01-02T15:04:05.000000Z"

// dayNote is the text that is signed about a day's file.
type dayNote struct {
	group   string
	spans   uint64
	root    tlog.Hash // of the Merkle tree of the records (RFC 6962 section 2.1)
	number  uint64
	from    microTime
	to      microTime // the next file begins
	entries uint64    // of the log, at the end
	behind  chainHash // of the log, before the file
	head    chainHash // of the log, at its end
	chain   chainHash // of the records
	gaps    []Gap     // of its time, that were known at the end
}

// text writes the lines that are signed.
func (n *dayNote) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n%d\n%v\n", originDay, url.PathEscape(n.group), n.spans, n.root)
	fmt.Fprintf(&b, "file %d\nfrom %s\nto %s\n", n.number, n.from.text(), n.to.text())
	fmt.Fprintf(&b, "entries %d\nbehind %v\nhead %v\nchain %v\n", n.entries, tlog.Hash(n.behind), tlog.Hash(n.head), tlog.Hash(n.chain))
	for _, g := range n.gaps {
		fmt.Fprintf(&b, "gap %s %s %s\n", microsOf(g.From).text(), microsOf(g.To).text(), url.PathEscape(g.Reason))
	}
	return b.String()
}

func (m microTime) text() string {
	if m == never {
		return "never"
	}
	return m.time().Format(microFormat)
}

func parseMicros(text string) (microTime, error) {
	t, err := time.Parse(microFormat, text)
	return microsOf(t), err
}

var errNote = errors.New("checkpoint: not as the history writes it")

// parseDayNote reads the text of a checkpoint of a day.
func parseDayNote(text string) (*dayNote, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 10 || !strings.HasPrefix(lines[0], originDay) {
		return nil, errNote
	}
	var n dayNote
	errs := make([]error, 10)
	n.group, errs[0] = url.PathUnescape(strings.TrimPrefix(lines[0], originDay))
	n.spans, errs[1] = strconv.ParseUint(lines[1], 10, 63)
	n.root, errs[2] = tlog.ParseHash(lines[2])
	n.number, errs[3] = strconv.ParseUint(strings.TrimPrefix(lines[3], "file "), 10, 64)
	n.from, errs[4] = parseMicros(strings.TrimPrefix(lines[4], "from "))
	n.to, errs[5] = parseMicros(strings.TrimPrefix(lines[5], "to "))
	n.entries, errs[6] = strconv.ParseUint(strings.TrimPrefix(lines[6], "entries "), 10, 64)
	for i, h := range []*chainHash{&n.behind, &n.head, &n.chain} {
		_, value, _ := strings.Cut(lines[7+i], " ")
		hash, err := tlog.ParseHash(value)
		*h, errs[7+i] = chainHash(hash), err
	}
	for _, line := range lines[10:] {
		f := strings.Split(line, " ")
		if len(f) != 4 || f[0] != "gap" {
			return nil, errNote
		}
		from, err1 := parseMicros(f[1])
		to, err2 := parseMicros(f[2])
		reason, err3 := url.PathUnescape(f[3])
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, errNote
		}
		n.gaps = append(n.gaps, Gap{Group: n.group, From: from.time(), To: to.time(), Reason: reason})
	}
	if errors.Join(errs...) != nil || n.text() != text {
		return nil, errNote
	}
	return &n, nil
}

// logNote is the text that is signed about a running log.
func logNote(group string, entries uint64, head chainHash, at microTime) string {
	return fmt.Sprintf("%s%s\n%d\n%v\nat %s\n", originLog, url.PathEscape(group), entries, tlog.Hash(head), at.text())
}

// parseLogNote reads the text of a checkpoint of a running log.
func parseLogNote(text string) (group string, entries uint64, head chainHash, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], originLog) {
		return "", 0, head, errNote
	}
	group, err1 := url.PathUnescape(strings.TrimPrefix(lines[0], originLog))
	entries, err2 := strconv.ParseUint(lines[1], 10, 64)
	hash, err3 := tlog.ParseHash(lines[2])
	at, err4 := parseMicros(strings.TrimPrefix(lines[3], "at "))
	if errors.Join(err1, err2, err3, err4) != nil || logNote(group, entries, chainHash(hash), at) != text {
		return "", 0, head, errNote
	}
	return group, entries, chainHash(hash), nil
}

// Key signs checkpoints.
type Key struct {
	signer note.Signer
	public string
}

// Public returns the key by which others verify checkpoints and answers, as one line of text
// in the form of golang.org/x/mod/sumdb/note.
func (k *Key) Public() string { return k.public }

// LoadKey reads the signing key from a file, which it writes first if it is not there, with a
// new Ed25519 key of this name. The name shows in checkpoints; it has no space and no plus
// sign.
func LoadKey(path, name string) (*Key, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return createKey(path, name)
	}
	if err != nil {
		return nil, fmt.Errorf("history: signing key: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, fmt.Errorf("history: signing key: %s has no key in the form of a signed note: %w", path, err)
	}
	parts := strings.SplitN(secret, "+", 5) // the last one is base64, and may have a plus sign
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, fmt.Errorf("history: signing key: %s has no Ed25519 key", path)
	}
	pair := ed25519.NewKeyFromSeed(raw[1:])
	public, err := note.NewEd25519VerifierKey(signer.Name(), pair.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("history: signing key: %s: %w", path, err)
	}
	return &Key{signer, public}, nil
}

func createKey(path, name string) (*Key, error) {
	secret, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, fmt.Errorf("history: signing key: %w", err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, fmt.Errorf("history: signing key: the name %q cannot be one of a key: %w", name, err)
	}
	err = writeFile(osFiles{}, path, func(w io.Writer) error {
		_, err := io.WriteString(w, secret+"\n")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("history: signing key: %w", err)
	}
	return &Key{signer, public}, nil
}

// sign returns the signed note of a text.
func (k *Key) sign(text string) (string, error) {
	signed, err := note.Sign(&note.Note{Text: text}, k.signer)
	return string(signed), err
}

// openNote returns the text of a signed note. public is the verifier's key.
func openNote(signed, public string) (string, error) {
	v, err := note.NewVerifier(public)
	if err != nil {
		return "", fmt.Errorf("the public key: %w", err)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return "", err
	}
	return n.Text, nil
}

// DayCheckpoint is the signed note of a day's file.
type DayCheckpoint struct {
	File uint64
	Note string
}

// DayCheckpoints returns those of a group's files behind the file of a number, that were written after
// a time, the oldest one first. Keep them elsewhere, such as in syslog, and give them to Verify.
func (s *Store) DayCheckpoints(group string, after uint64, since time.Time) (list []DayCheckpoint, err error) {
	l := s.log(group)
	if l == nil {
		return nil, fmt.Errorf("history: group %s: %w", group, ErrNotBegun)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.segments) - 1; i >= 0 && l.segments[i].number > after; i-- {
		g := l.segments[i]
		if g.day == nil {
			continue
		}
		info, err := os.Stat(g.day.path)
		if err != nil {
			return nil, fmt.Errorf("history: group %s: %w", group, err)
		}
		if !info.ModTime().After(since) {
			break
		}
		err = g.day.with(func(r *dayReader) error {
			list = append(list, DayCheckpoint{g.number, r.note})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("history: group %s: %w", group, err)
		}
	}
	slices.Reverse(list)
	return list, nil
}

// textOf returns the text of a signed note without a look at the signature.
func textOf(signed string) string {
	i := strings.LastIndex(signed, "\n\n")
	if i < 0 {
		return ""
	}
	return signed[:i+1]
}
