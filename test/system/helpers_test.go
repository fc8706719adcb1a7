package system

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// recordKey is the contract's key of a subscriber record.
func recordKey(inside netip.Addr) string {
	return "sessiond:{default}:sub:" + inside.String()
}

func accountingOff(nas string) acctclient.Request {
	return acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_AccountingOff, NASIdentifier: nas, EventTime: time.Now(),
	}
}

// onlineBehind starts a session behind another NAS than the rig's own.
func (w *world) onlineBehind(nas string, s rig.Session) rig.Binding {
	w.t.Helper()
	w.must(w.Send(w.ctx, acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_Start, SessionID: s.ID, UserName: s.User,
		FramedAddress: s.Inside, NASIdentifier: nas, EventTime: time.Now(),
	}))
	b, err := w.AwaitState(w.ctx, s.Inside, "ACTIVE")
	w.must(err)
	return b
}

// awaitFree waits until the address is in no binding any more, held ones included.
func (w *world) awaitFree(ctx context.Context, inside netip.Addr) error {
	return w.Until(ctx, "the block of "+inside.String()+" to be free", func() (bool, error) {
		bindings, err := w.Bindings(ctx, inside)
		return len(bindings) == 0, err
	})
}

// cannotOpen checks that the address cannot open a flow.
func (w *world) cannotOpen(inside netip.Addr) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 700*time.Millisecond)
	defer cancel()
	if f, err := w.Lab.OpenFlow(ctx, netip.AddrPortFrom(inside, 0)); err == nil {
		w.t.Errorf("%s opened a new flow, seen as %v", inside, f.Source())
	}
}

// killSessions ends the sessions of an address like an idle timeout.
func (w *world) killSessions(inside netip.Addr) {
	w.t.Helper()
	_, err := w.Lab.CGN.Output(w.ctx, "conntrack", "-D", "-s", inside.String())
	w.must(err)
}

// blocksOf reads all blocks, by inside address, of a JSON binding list.
func blocksOf(list string) map[string]string {
	blocks := map[string]string{}
	for line := range strings.Lines(list) {
		var b rig.Binding
		if json.Unmarshal([]byte(line), &b) == nil {
			blocks[b.InsideAddress] = fmt.Sprint(b.OutsideAddress, b.Blocks)
		}
	}
	return blocks
}

// redis runs a command of redis-cli and returns its output without surrounding space.
func (w *world) redis(args ...string) string {
	w.t.Helper()
	out, err := w.Redis.CLI(w.ctx, args...)
	w.must(err)
	return strings.TrimSpace(out)
}
