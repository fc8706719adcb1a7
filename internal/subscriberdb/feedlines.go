package subscriberdb

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Names of the kinds of feed entries that tell of several records in short, a
// line each:
//
//	began      <inside> <the record's fields as words>
//	refreshed  <inside> <updated_at> <input_octets> <output_octets>
//	stopped    <inside> <Acct-Terminate-Cause> <updated_at> <input_octets> <output_octets>
//
// A reader has the rest of a record from what it was told before.
const (
	kindBegan     = "began"
	kindRefreshed = "refreshed"
	kindStopped   = "stopped"
)

// endText is what the feed tells of a Stop, besides the address.
func endText(e *subscriber.Ending) string {
	text := make([]byte, 0, 80)
	text = append(strconv.AppendUint(text, uint64(e.Cause), 10), ' ')
	text = append(appendTimeOrDash(text, e.Record.UpdatedAt), ' ')
	text = append(strconv.AppendUint(text, e.Record.InputOctets, 10), ' ')
	return string(strconv.AppendUint(text, e.Record.OutputOctets, 10))
}

// appendLines reads an entry that tells of several records.
func appendLines(list []subscriber.Change, group string, entry redis.XMessage, lines string) []subscriber.Change {
	kind, expires := text(entry, "kind"), entryExpiry(entry.ID, text(entry, "ttl"))
	list = slices.Grow(list, strings.Count(lines, "\n")+1)
	var before subscriber.Record
	for line := range strings.SplitSeq(lines, "\n") {
		c, ok := parseLine(group, kind, line)
		if !ok {
			continue
		}
		c.ID, c.Record.Version, c.Record.ExpiresAt = entry.ID, entry.ID, expires
		if kind == kindBegan {
			detach(&c.Record, &before)
			before = c.Record
		}
		list = append(list, c)
	}
	return list
}

// parseLine reads the line of one record.
func parseLine(group, kind, line string) (c subscriber.Change, ok bool) {
	address, rest, _ := strings.Cut(line, " ")
	inside, err := netip.ParseAddr(address)
	if err != nil {
		return c, false
	}
	key := subscriber.Key{Group: group, Inside: inside}
	switch kind {
	case kindBegan:
		c.Kind, c.Record = subscriber.Created, parseRecordText(key, rest)
		return c, true
	case kindStopped:
		c.Kind, c.Reason = subscriber.Deleted, subscriber.ReasonStop
		cause, last, _ := strings.Cut(rest, " ")
		number, err := strconv.ParseUint(cause, 10, 32)
		if err != nil {
			return c, false
		}
		c.Cause, rest = uint32(number), last
	case kindRefreshed:
		c.Kind = subscriber.Updated
	default:
		return c, false
	}
	c.Partial = true
	c.Record, ok = parseRefreshed(key, rest)
	return c, ok
}

// detach gives a record texts of its own, so that it does not keep the whole
// entry in memory. The names that it shares with the one before it are shared.
func detach(r, before *subscriber.Record) {
	share := func(text *string, other string) {
		if *text != other {
			other = strings.Clone(*text)
		}
		*text = other
	}
	share(&r.NAS, before.NAS)
	share(&r.Client, before.Client)
	share(&r.CallingStationID, before.CallingStationID)
	r.UserName, r.AcctSessionID = strings.Clone(r.UserName), strings.Clone(r.AcctSessionID)
}
