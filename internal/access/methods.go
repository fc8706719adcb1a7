package access

import (
	"fmt"
	"path"
)

// leastRoles has the least role that may call a method, by its full name. Every
// method that a server offers is here.
var leastRoles = map[string]Role{
	"/sessiond.v1.SubscriberService/GetSubscriber":     Viewer,
	"/sessiond.v1.SubscriberService/ListSubscribers":   Viewer,
	"/sessiond.v1.SubscriberService/WatchSubscribers":  Viewer,
	"/sessiond.v1.SubscriberService/PutSubscriber":     Operator,
	"/sessiond.v1.SubscriberService/DeleteSubscribers": Operator,

	"/sessiond.v1.NatService/ListBindings":    Viewer,
	"/sessiond.v1.NatService/LookupOutside":   Viewer,
	"/sessiond.v1.NatService/ListPools":       Viewer,
	"/sessiond.v1.NatService/ListDrops":       Viewer,
	"/sessiond.v1.NatService/AdviseBlockSize": Viewer,
	"/sessiond.v1.NatService/AddPool":         Admin,
	"/sessiond.v1.NatService/DrainPool":       Admin,
	"/sessiond.v1.NatService/RemovePool":      Admin,

	"/sessiond.v1.SessionService/ListSessions":      Viewer,
	"/sessiond.v1.SessionService/CountSessions":     Viewer,
	"/sessiond.v1.SessionService/TerminateSessions": Operator,

	"/sessiond.v1.ControlService/GetSettings":    Viewer,
	"/sessiond.v1.ControlService/UpdateSettings": Admin,
	"/sessiond.v1.ControlService/GetStatus":      Viewer,
	"/sessiond.v1.ControlService/Reconcile":      Operator,

	"/sessiond.v1.RemovalService/ListRemovals":    Viewer,
	"/sessiond.v1.RemovalService/ConfirmRemovals": Operator,
	"/sessiond.v1.RemovalService/RefuseRemovals":  Operator,

	"/sessiond.v1.NasService/GetNas":    Viewer,
	"/sessiond.v1.NasService/ListNases": Viewer,

	"/sessiond.v1.MappingService/ListMappings":  Viewer,
	"/sessiond.v1.MappingService/CreateMapping": Operator,
	"/sessiond.v1.MappingService/DeleteMapping": Operator,

	"/sessiond.v1.DeskService/ExplainSubscriber":  Viewer,
	"/sessiond.v1.DeskService/ListEndings":        Viewer,
	"/sessiond.v1.DeskService/ListTopSubscribers": Viewer,

	"/sessiond.v1.AuditService/ListAudit":   Viewer,
	"/sessiond.v1.AuditService/VerifyAudit": Viewer,

	// Who had which ports is what a viewer sees of those online, for a longer time. What leaves the
	// machine by a lawful request, or as a whole, or for ever, has its order in the audit trail.
	"/sessiond.v1.HistoryService/ListHistory":   Viewer,
	"/sessiond.v1.HistoryService/VerifyHistory": Viewer,
	"/sessiond.v1.HistoryService/ExportHistory": Operator,
	"/sessiond.v1.HistoryService/BackupHistory": Admin,
	"/sessiond.v1.HistoryService/EraseHistory":  Admin,

	"/grpc.health.v1.Health/Check": None,
	"/grpc.health.v1.Health/List":  None,
	"/grpc.health.v1.Health/Watch": None,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      Viewer,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Viewer,
}

// Methods returns all methods that have a role, by their full names.
func Methods() []string {
	var names []string
	for name := range leastRoles {
		names = append(names, name)
	}
	return names
}

// Needed returns the least role that may make a call. The request may be nil,
// as of a stream. Whoever may read may make a dry run, which changes nothing.
// It is an error if the method has no role.
func Needed(method string, request any) (Role, error) {
	needed, ok := leastRoles[method]
	if !ok {
		return Admin, fmt.Errorf("access: method %s has no role; give it one in leastRoles", method)
	}
	if r, ok := request.(interface{ GetDryRun() bool }); ok && r.GetDryRun() {
		return min(needed, Viewer), nil
	}
	return needed, nil
}

// Changes reports whether a call may change something. One of a method without
// a role may.
func Changes(method string, request any) bool {
	needed, _ := Needed(method, request)
	return needed > Viewer
}

// Authorize returns an error, which is a *DeniedError, if the actor may not make
// the call. Nobody may call a method without a role.
func Authorize(a Actor, method string, request any) error {
	needed, err := Needed(method, request)
	if err != nil || a.Role < needed {
		return &DeniedError{Actor: a, Method: method, Needed: needed}
	}
	return nil
}

// DeniedError is the refusal of a call.
type DeniedError struct {
	Actor  Actor
	Method string // full name
	Needed Role
}

// Error names the role that is there and the one that is needed.
func (e *DeniedError) Error() string {
	may := "has no role here"
	switch e.Actor.Role {
	case Viewer:
		may = "may only read here"
	case Operator, Admin:
		may = "has role " + e.Actor.Role.String() + " here"
	}
	return fmt.Sprintf("%s %s, and %s needs role %s", e.Actor.Name, may, path.Base(e.Method), e.Needed)
}
