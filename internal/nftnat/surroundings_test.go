package nftnat

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
)

// TestWarnsOfSurroundings: a start warns of an interface that does not exist, and of
// conntrack accounting that is off, and of nothing that is in order. A prefix of interface
// names matches any interface whose name begins with it.
func TestWarnsOfSurroundings(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	begin := netlab.InsideInterface[:len(netlab.InsideInterface)-1] + anySuffix
	for _, tt := range []struct{ inside, outside, acct, want string }{
		{netlab.InsideInterface, netlab.OutsideInterface, "1", ""},
		{netlab.InsideInterface, "wan7", "0", "interface=wan7 nf_conntrack_acct is off"},
		{begin, netlab.OutsideInterface, "1", ""},
		{"ppp*", netlab.OutsideInterface, "1", "interface=ppp*"},
	} {
		run(t, lab, "sysctl", "-qw", "net.netfilter.nf_conntrack_acct="+tt.acct)
		var log bytes.Buffer
		o := labOptions(lab)
		o.InsideInterfaces, o.OutsideInterfaces = []string{tt.inside}, []string{tt.outside}
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		k := openKernel(t, o)
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		for _, said := range []string{"interface=", "nf_conntrack_acct is off"} {
			if got := strings.Contains(log.String(), said); got != strings.Contains(tt.want, said) {
				t.Errorf("inside %s, outside %s, acct %s: logged\n%s", tt.inside, tt.outside, tt.acct, log.String())
			}
		}
	}
}
