package session

import (
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

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
