package ownership

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// Table is the exclusive right to program one nftables table of one network
// namespace. It ends with Close, or with the process.
type Table struct{ name *name }

// handover bounds LockTable's wait for a daemon that is about to end: after a
// stop it flushes first, after a kill it frees its memory first.
const handover = 5 * time.Second

// LockTable locks a table, before any part of it is read or changed. It fails if another
// process has the lock for longer than handover.
func LockTable(ctx context.Context, namespace, table string) (*Table, error) {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	for {
		n, err := lockTable(namespace, "sessiond/table/"+table)
		if err == nil {
			return &Table{n}, nil
		}
		taken := (*takenError)(nil)
		if !errors.As(err, &taken) {
			return nil, fmt.Errorf("lock table ip %s: %w", table, err)
		}
		// Daemons that see each other's names all free their own: a random pause lets one be alone.
		if clock.Sleep(ctx, lookEvery/10+mathrand.N(lookEvery/5)) != nil {
			return nil, fmt.Errorf("table ip %s is programmed by another sessiond already, %w; stop that one, or give this one a network namespace (nat.netns) of its own", table, taken)
		}
	}
}

// lockTable takes the name of a table. Any user of the machine can take that name first, and
// would keep every daemon from the table. So where a stranger has it, lockTable takes another
// name with the same beginning and a random end, which cannot be foreseen; and it looks for
// daemons under all names with that beginning.
func lockTable(namespace, text string) (n *name, err error) {
	err = within(namespace, func() error {
		taken := (*takenError)(nil)
		if n, err = bindName(text); errors.As(err, &taken) && taken.stranger() {
			n, err = bindName(text + "/" + rand.Text())
		}
		if err != nil {
			return err
		}
		if err := othersWith(text, n.text); err != nil {
			return errors.Join(err, n.close())
		}
		return nil
	})
	return n, err
}

// othersWith returns a *takenError for a daemon whose name is text, or begins with text and a
// slash, other than own.
func othersWith(text, own string) error {
	strangers := strangersNames()
	for _, other := range namesWith(text) {
		if other == own || other != text && !strings.HasPrefix(other, text+"/") || strangers[other] {
			continue
		}
		if taken, err := askName(other); err != nil || taken != nil && !taken.stranger() {
			return errors.Join(errOf(taken), err)
		}
	}
	return nil
}

// Close gives the table up.
func (t *Table) Close() error { return t.name.close() }
