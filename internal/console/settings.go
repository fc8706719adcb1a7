package console

import (
	"net/http"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/measure"
)

// settingsBody are the live settings.
type settingsBody struct {
	Removal  string
	Text     string // what the mode does
	Timeouts []labelledText
	Switches []modeSwitch // for those who may
}

// modeSwitch leads to the page that sets another mode.
type modeSwitch struct{ Mode, Page string }

// settingsPage shows the live settings.
func (c *Console) settingsPage(r *http.Request) (shownPage, error) {
	s, err := c.Controls.Settings(r.Context())
	if err != nil {
		return shownPage{}, err
	}
	b := settingsBody{Removal: s.Removal.String(), Text: modeTexts[s.Removal]}
	for _, name := range inspect.SettingNames() {
		d := inspect.TimeoutField(&s.IdleTimeouts, name)
		switch {
		case d == nil:
		case *d == 0 && inspect.MayBeZero(name):
			b.Timeouts = append(b.Timeouts, labelledText{name, "as " + inspect.SettingTCPTransitory})
		default:
			b.Timeouts = append(b.Timeouts, labelledText{name, measure.Span(*d)})
		}
	}
	v := visitorOf(r)
	if v.session != nil && v.may(pb.ControlService_UpdateSettings_FullMethodName) {
		for _, mode := range []inspect.RemovalMode{inspect.RemovalOn, inspect.RemovalOff, inspect.RemovalObserve} {
			if mode != s.Removal {
				b.Switches = append(b.Switches, modeSwitch{mode.String(), changePath("settings/removal", "mode", mode.String())})
			}
		}
	}
	return shownPage{template: "settings.html", Title: "Settings", Section: "settings", Body: b}, nil
}
