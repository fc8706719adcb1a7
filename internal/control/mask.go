package control

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

const (
	maskField = "update_mask"
	maskAll   = "*"

	// removalModePath is the path of the other form of inspect.SettingRemoval.
	removalModePath = "removal_mode"
)

// settingNames expands the mask of UpdateSettings to names of settings. The
// path of a message means all settings in it.
func settingNames(mask *fieldmaskpb.FieldMask) ([]string, error) {
	if len(mask.GetPaths()) == 0 {
		return nil, invalid(maskField, "name the settings to change, or %q for all", maskAll)
	}
	var names []string
	for _, path := range mask.GetPaths() {
		covered := settingsBelow(path)
		if len(covered) == 0 {
			return nil, invalid(maskField, "unknown setting %q; known are %s",
				path, strings.Join(append(inspect.SettingNames(), removalModePath), ", "))
		}
		names = append(names, covered...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func settingsBelow(path string) []string {
	if path == removalModePath {
		return []string{inspect.SettingRemoval}
	}
	var names []string
	for _, name := range inspect.SettingNames() {
		if path == maskAll || name == path || strings.HasPrefix(name, path+".") {
			names = append(names, name)
		}
	}
	return names
}

// modes are the forms of the toggle that a mask names.
type modes struct{ toggle, mode bool }

func modesNamed(mask *fieldmaskpb.FieldMask) modes {
	all := slices.Contains(mask.GetPaths(), maskAll)
	return modes{
		toggle: all || slices.Contains(mask.GetPaths(), inspect.SettingRemoval),
		mode:   all || slices.Contains(mask.GetPaths(), removalModePath),
	}
}

// replacesAll reports whether the mask of PutSubscriber covers the whole record.
func replacesAll(mask *fieldmaskpb.FieldMask) bool {
	return len(mask.GetPaths()) == 0 || slices.Contains(mask.GetPaths(), maskAll)
}

// mergeRecord copies the fields in the mask from one record to another.
func mergeRecord(to *subscriber.Record, from subscriber.Record, mask *fieldmaskpb.FieldMask) error {
	for _, path := range mask.GetPaths() {
		switch path {
		case "user_name":
			to.UserName = from.UserName
		case "nas":
			to.NAS = from.NAS
		case "acct_session_id":
			to.AcctSessionID = from.AcctSessionID
		case "calling_station_id":
			to.CallingStationID = from.CallingStationID
		case "expires_at":
			to.ExpiresAt = from.ExpiresAt
		default:
			return invalid(maskField, "%q cannot be changed; user_name, nas, acct_session_id, "+
				"calling_station_id and expires_at can", path)
		}
	}
	return nil
}
