package nftnat

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
)

// TestWarnsOfSurroundings: an interface that does not exist is named at the start, and
// so is accounting of conntrack that is off; what is in order is not.
func TestWarnsOfSurroundings(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	for _, tt := range []struct{ outside, acct, want string }{
		{netlab.OutsideInterface, "1", ""},
		{"wan7", "0", "interface=wan7 nf_conntrack_acct is off"},
	} {
		run(t, lab, "sysctl", "-qw", "net.netfilter.nf_conntrack_acct="+tt.acct)
		var log bytes.Buffer
		o := labOptions(lab)
		o.OutsideInterfaces, o.Logger = []string{tt.outside}, slog.New(slog.NewTextHandler(&log, nil))
		k := openKernel(t, o)
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		for _, said := range []string{"interface=", "nf_conntrack_acct is off"} {
			if got := strings.Contains(log.String(), said); got != strings.Contains(tt.want, said) {
				t.Errorf("outside %s, acct %s: logged\n%s", tt.outside, tt.acct, log.String())
			}
		}
	}
}
