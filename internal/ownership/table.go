package ownership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// Table is the exclusive right to program one nftables table of one network
// namespace. It ends with Close, or with the process.
type Table struct{ name *name }

// handover bounds LockTable's wait for a daemon that is about to end: after a
// stop it flushes first, after a kill it frees its memory first.
const handover = 5 * time.Second

// LockTable locks a table, before any part of it is read or changed. It fails
// if another process keeps the lock.
func LockTable(ctx context.Context, namespace, table string) (*Table, error) {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	for {
		n, err := takeName(namespace, "sessiond/table/"+table)
		if err == nil {
			return &Table{n}, nil
		}
		taken := (*takenError)(nil)
		if !errors.As(err, &taken) {
			return nil, fmt.Errorf("lock table ip %s: %w", table, err)
		}
		if clock.Sleep(ctx, lookEvery/5) != nil {
			return nil, fmt.Errorf("table ip %s is programmed by another sessiond already, %w; stop that one, or give this one a network namespace (nat.netns) of its own", table, taken)
		}
	}
}

// Close gives the table up.
func (t *Table) Close() error { return t.name.close() }
