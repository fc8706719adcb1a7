package subscriber

import (
	"math"
	"strings"
	"unique"
)

// Packer packs records in sequence. A value equal to that of the previous
// record, as the NAS and the version mostly are, is not looked up again.
type Packer struct {
	origin  origin
	handle  unique.Handle[origin] // of origin, if that is not the zero one
	id      string
	version Version // of id
	exact   bool    // version gives the exact text of id
}

// Pack is Record.Pack.
func (k *Packer) Pack(r *Record) Packed {
	p := Packed{
		started: instantOf(r.StartedAt), updated: instantOf(r.UpdatedAt), expires: instantOf(r.ExpiresAt),
		input: r.InputOctets, output: r.OutputOctets, held: r.RemovalHeld,
	}
	p.origin = k.originOf(r)
	if r.Inside.Is4() {
		p.inside, p.flags = r.Inside.As4(), p.flags|packedInside4
	}
	if r.Unconfirmed {
		p.flags |= packedUnconfirmed
	}
	var exact bool
	if p.version, exact = k.versionOf(r); exact {
		p.flags |= packedVersion
	}
	prefix := r.identityPrefix()
	calling := len(prefix) + len(r.UserName) + len(r.CallingStationID)
	session := calling + len(r.AcctSessionID)
	switch {
	case session > math.MaxUint16:
		p.flags |= packedLong
	case calling == 0: // a concatenation with one non-empty part would keep that part's whole backing string
		p.session = uint16(session)
		p.text = strings.Clone(r.AcctSessionID + r.Class)
	default:
		p.name, p.calling, p.session = uint16(len(prefix)+len(r.UserName)), uint16(calling), uint16(session)
		p.text = prefix + r.UserName + r.CallingStationID + r.AcctSessionID + r.Class
	}
	p.rare = r.rare(p.flags)
	return p
}

func (k *Packer) originOf(r *Record) unique.Handle[origin] {
	switch o := (origin{r.Group, r.Client, r.NAS, r.NASAddress}); o {
	case origin{}:
		return unique.Handle[origin]{}
	case k.origin:
	default:
		k.handle = unique.Make(o)
		k.origin = k.handle.Value() // copied strings, which no caller shares
	}
	return k.handle
}

func (k *Packer) versionOf(r *Record) (version Version, exact bool) {
	if k.id != r.Version {
		k.id, k.version = r.Version, ParseVersion(r.Version)
		k.exact = r.Version == k.version.String()
	}
	return k.version, k.exact
}
