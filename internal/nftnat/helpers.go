package nftnat

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// Conntrack helpers (ALGs) expect connections and translate them, to ports of no block. The
// chains of the table drop those of subscribers; a start warns of their cause.

// helperSwitch makes conntrack assign helpers by port; gone in Linux 6.0, and off before.
const helperSwitch = "/proc/sys/net/netfilter/nf_conntrack_helper"

// warnOfHelpers logs objects and settings of others that assign helpers.
func warnOfHelpers(conn *wire.Conn, netns string, log *slog.Logger) {
	if netns == "" { // the file shows the namespace of the thread
		if on, err := os.ReadFile(helperSwitch); err == nil && strings.TrimSpace(string(on)) != "0" {
			log.Warn("net.netfilter.nf_conntrack_helper is on: connections that helpers expect are dropped for subscribers, since their outside ports are of no block; switch it off")
		}
	}
	helpers, err := listHelpers(context.Background(), conn)
	if err != nil || len(helpers) == 0 {
		return
	}
	log.Warn("others may assign conntrack helpers (ALGs): connections that helpers expect are dropped for subscribers, since their outside ports are of no block; take subscribers out of those rules",
		"helpers", helpers)
}

// listHelpers lists the ct helper objects of all tables, as "table NAME, ct helper NAME".
func listHelpers(ctx context.Context, conn *wire.Conn) ([]string, error) {
	found := map[string]bool{}
	err := conn.Dump(ctx, wire.GetObject, wire.AnyFamily, func() { clear(found) }, func(attrs []byte) {
		if nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_OBJ_TYPE)) == unix.NFT_OBJECT_CT_HELPER {
			found["table "+nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_OBJ_TABLE))+", ct helper "+nlmsg.String(nlmsg.Attr(attrs, unix.NFTA_OBJ_NAME))] = true
		}
	})
	return slices.Sorted(maps.Keys(found)), err
}
