package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// file appends lines to a file. It opens the file anew when that was moved or removed, as
// programs that rotate logs do.
type file struct {
	path string
	open *os.File // nil until it is needed
}

// NewFile returns a Writer that appends to a file, of mode 0640 where it does not exist.
func NewFile(path string) Writer { return &file{path: path} }

// CheckFile refuses a path of something else than a file. A pipe or device cannot be synced, so its
// lines would come again and again, and one without a reader would hold up a stop.
func CheckFile(path string) error {
	there, err := os.Stat(path)
	if err != nil || there.Mode().IsRegular() {
		return nil // a missing file is made
	}
	return fmt.Errorf("audit file: %s is no regular file; write the path of one, or use audit.syslog: unix:/dev/log", path)
}

// Write implements Writer. The lines are on the disk when it returns.
func (w *file) Write(_ context.Context, entries []Line) error {
	if err := w.reopen(); err != nil {
		return err
	}
	var text strings.Builder
	if torn, err := w.torn(); err != nil {
		return err
	} else if torn {
		text.WriteByte('\n')
	}
	for _, e := range entries {
		text.WriteString(e.Text)
		text.WriteByte('\n')
	}
	if _, err := io.WriteString(w.open, text.String()); err != nil {
		return fmt.Errorf("audit file: %w", err)
	}
	if err := w.open.Sync(); err != nil {
		return fmt.Errorf("audit file: %w", err)
	}
	return nil
}

// reopen opens the file, unless the open one still has the path.
func (w *file) reopen() error {
	if w.open != nil {
		there, err := os.Stat(w.path)
		here, errHere := w.open.Stat()
		if err == nil && errHere == nil && os.SameFile(there, here) {
			return nil
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	if err := CheckFile(w.path); err != nil {
		return err
	}
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("audit file: %w", err)
	}
	w.open = f
	return nil
}

// torn reports whether the file ends within a line, after a write that failed.
func (w *file) torn() (bool, error) {
	size, err := w.open.Seek(0, io.SeekEnd)
	if err != nil {
		return false, fmt.Errorf("audit file: %w", err)
	}
	if size == 0 {
		return false, nil // an empty file
	}
	last := make([]byte, 1)
	if _, err := w.open.ReadAt(last, size-1); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("audit file: %w", err)
	}
	return last[0] != '\n', nil
}

// Close implements Writer.
func (w *file) Close() error {
	if w.open == nil {
		return nil
	}
	err := w.open.Close()
	w.open = nil
	if err != nil {
		return fmt.Errorf("audit file: %w", err)
	}
	return nil
}
