package session

import (
	"time"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// The receipt of a teardown is kept with the binding: while it is CUT in the
// engine, from its hold on in the database too.

// receiptCutLocked notes that the gate has closed.
func (m *Manager) receiptCutLocked(s *slot, now time.Time) {
	if s.stray || s.over == nil {
		return
	}
	m.keepReceiptLocked(s, lsn.Receipt{CutAt: now, Elements: s.over.elements})
}

// receiptReapedLocked notes that no conntrack entry is left; the hold begins now.
func (m *Manager) receiptReapedLocked(s *slot, proof nftnat.Receipt) {
	if s.stray {
		return
	}
	var r lsn.Receipt
	if b, ok := m.engine.Live(s.group(), s.inside()); ok && b.Receipt != nil {
		r = *b.Receipt
	}
	r.ReapedAt, r.ReleasedAt = proof.At, m.now()
	r.Deleted, r.Proof = proof.Deleted, lsn.Proof(proof.Proof)
	m.keepReceiptLocked(s, r)
}

func (m *Manager) keepReceiptLocked(s *slot, r lsn.Receipt) {
	if _, err := m.engine.SetReceipt(s.group(), s.inside(), r); err != nil {
		m.log.Error("keep receipt", "group", s.group(), "inside", s.inside(), "err", err)
	}
}

// proofNames stand in stored bindings.
var proofNames = [...]string{lsn.ProofIndex: "index", lsn.ProofTable: "table"}

func storedReceipt(r *lsn.Receipt) subscriberdb.Receipt {
	return subscriberdb.Receipt{
		CutAt: r.CutAt.UTC(), ReapedAt: r.ReapedAt.UTC(), ReleasedAt: r.ReleasedAt.UTC(),
		Elements: r.Elements, Deleted: r.Deleted, Proof: proofNames[r.Proof],
	}
}

func restoredReceipt(r *subscriberdb.Receipt) *lsn.Receipt {
	if r == nil {
		return nil
	}
	restored := &lsn.Receipt{
		CutAt: r.CutAt, ReapedAt: r.ReapedAt, ReleasedAt: r.ReleasedAt, Elements: r.Elements, Deleted: r.Deleted,
	}
	for proof, name := range proofNames {
		if name == r.Proof {
			restored.Proof = lsn.Proof(proof)
		}
	}
	return restored
}
