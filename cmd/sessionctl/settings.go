package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// A setting is one live setting in its command-line form.
type setting struct {
	name string
	path string // in field masks; empty: the name
	set  func(s *pb.Settings, value string) error
	get  func(s *pb.Settings) string
}

var settings = []setting{
	{
		name: "subscriber_session_removal",
		path: "removal_mode",
		set:  setRemoval,
		get:  func(s *pb.Settings) string { return removalText(s) },
	},
	timeoutSetting("tcp_established", func(t *pb.IdleTimeouts) **durationpb.Duration { return &t.TcpEstablished }),
	timeoutSetting("tcp_transitory", func(t *pb.IdleTimeouts) **durationpb.Duration { return &t.TcpTransitory }),
	optionalTimeout("tcp_partial_open", func(t *pb.IdleTimeouts) **durationpb.Duration { return &t.TcpPartialOpen }),
	optionalTimeout("tcp_partial_close", func(t *pb.IdleTimeouts) **durationpb.Duration { return &t.TcpPartialClose }),
	timeoutSetting("udp", func(t *pb.IdleTimeouts) **durationpb.Duration { return &t.Udp }),
	timeoutSetting("icmp", func(t *pb.IdleTimeouts) **durationpb.Duration { return &t.Icmp }),
}

func timeoutSetting(name string, field func(*pb.IdleTimeouts) **durationpb.Duration) setting {
	return setting{
		name: "idle_timeouts." + name,
		set: func(s *pb.Settings, value string) error {
			d, err := time.ParseDuration(value)
			if err != nil || d < time.Second || d%time.Second != 0 {
				return fmt.Errorf("%q is no time in whole seconds such as 300s or 2h4m", value)
			}
			*field(s.IdleTimeouts) = durationpb.New(d)
			return nil
		},
		get: func(s *pb.Settings) string {
			if s.GetIdleTimeouts() == nil {
				return none
			}
			return timeoutText((*field(s.GetIdleTimeouts())).AsDuration())
		},
	}
}

// optionalTimeout is a setting whose 0s means tcp_transitory.
func optionalTimeout(name string, field func(*pb.IdleTimeouts) **durationpb.Duration) setting {
	s := timeoutSetting(name, field)
	set, get := s.set, s.get
	s.set = func(to *pb.Settings, value string) error {
		if d, err := time.ParseDuration(value); err == nil && d == 0 {
			*field(to.IdleTimeouts) = durationpb.New(0)
			return nil
		}
		return set(to, value)
	}
	s.get = func(from *pb.Settings) string {
		if from.GetIdleTimeouts() != nil && (*field(from.GetIdleTimeouts())).AsDuration() == 0 {
			return "0s (as tcp_transitory)"
		}
		return get(from)
	}
	return s
}

// timeoutText writes a timeout in the form for setting it, with an explanation
// of large ones.
func timeoutText(d time.Duration) string {
	text := fmt.Sprintf("%ds", int64(d/time.Second))
	if d < time.Minute {
		return text
	}
	return text + " (" + span(d) + ")"
}

func setRemoval(s *pb.Settings, value string) error {
	switch value {
	case "on", "true":
		s.RemovalMode = pb.RemovalMode_REMOVAL_MODE_ON
	case "off", "false":
		s.RemovalMode = pb.RemovalMode_REMOVAL_MODE_OFF
	case "observe":
		s.RemovalMode = pb.RemovalMode_REMOVAL_MODE_OBSERVE
	default:
		return fmt.Errorf("%q is none of on, off and observe", value)
	}
	s.SubscriberSessionRemoval = s.GetRemovalMode() == pb.RemovalMode_REMOVAL_MODE_ON
	return nil
}

// removalText writes the toggle in the form for setting it.
func removalText(s *pb.Settings) string {
	return strings.ToLower(strings.TrimPrefix(s.GetRemovalMode().String(), "REMOVAL_MODE_"))
}

// settingsCommands are the commands that show and change live settings.
type settingsCommands struct{ *app }

func (a settingsCommands) command() *cobra.Command {
	return group("settings", "Settings that change while the daemon runs", a.getCommand(), a.setCommand())
}

func (a settingsCommands) getCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "get",
		Short:   "Show the live settings",
		Example: "  sessionctl settings get",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			res, err := client.GetSettings(ctx, &pb.GetSettingsRequest{})
			if err != nil {
				return err
			}
			return a.show(res.GetSettings())
		},
	}
}

func (a settingsCommands) show(s *pb.Settings) error {
	if !a.forPeople() {
		return a.message(s)
	}
	t := newTable(a.stdout, []string{"SETTING", "VALUE"})
	for _, one := range settings {
		if err := t.add([]string{one.name, one.get(s)}); err != nil {
			return err
		}
	}
	return t.end()
}

func (a settingsCommands) setCommand() *cobra.Command {
	var yes bool
	var order orderFlags
	c := &cobra.Command{
		Use:   "set NAME=VALUE...",
		Short: "Change live settings",
		Long: "Change live settings. All that are named change together; the others stay.\n" +
			"Idle timeouts apply to sessions that begin afterwards. Switching removal on cuts\n" +
			"the draining subscribers: at a terminal it asks first if there are any.",
		Example: "  sessionctl settings set subscriber_session_removal=observe\n" +
			"  sessionctl settings set idle_timeouts.udp=300s idle_timeouts.icmp=60s",
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeSettings,
		RunE: func(c *cobra.Command, given []string) error {
			req, err := settingsRequest(given)
			if err != nil {
				return err
			}
			client, err := a.control()
			if err != nil {
				return err
			}
			if err := a.confirmCuts(c.Context(), yes || order.validateOnly, req.GetSettings()); err != nil {
				return err
			}
			ctx, cancel := a.bounded(c.Context())
			defer cancel()
			req.Reason, req.RequestId, req.ValidateOnly = order.reason, order.requestID, order.validateOnly
			res, err := client.UpdateSettings(ctx, req)
			if err != nil {
				return err
			}
			if order.validateOnly {
				return a.tried(res, "cut %s and end %s", plural(res.GetBindingsCut(), "draining binding"), plural(res.GetSessionsEnded(), "NAT session"))
			}
			return a.show(res.GetSettings())
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	order.register(c)
	return c
}

// confirmCuts asks whether to go on if the change cuts draining subscribers. Unlike other
// commands, this one goes on without a terminal: scripts switch removal on without --yes.
func (a settingsCommands) confirmCuts(ctx context.Context, yes bool, change *pb.Settings) error {
	if yes || change.GetRemovalMode() != pb.RemovalMode_REMOVAL_MODE_ON || !a.terminal() {
		return nil
	}
	n, err := a.countCuts(ctx)
	if err != nil || n == 0 {
		return err
	}
	return a.confirm(yes, func() (string, error) {
		return fmt.Sprintf("Cut %s and end the NAT sessions?", plural(n, "draining subscriber")), nil
	})
}

// countCuts returns the number of draining bindings outside a grace time.
func (a settingsCommands) countCuts(ctx context.Context) (n uint32, err error) {
	draining := &pb.ListBindingsRequest{PageSize: pageSize, State: pb.BindingState_BINDING_STATE_DRAINING}
	err = bindingCommands(a).each(ctx, draining, func(page []*pb.Binding) error {
		for _, b := range page {
			if b.GetGraceUntil() == nil {
				n++
			}
		}
		return nil
	})
	return n, err
}

// settingsRequest reads NAME=VALUE arguments.
func settingsRequest(given []string) (*pb.UpdateSettingsRequest, error) {
	req := &pb.UpdateSettingsRequest{
		Settings:   &pb.Settings{IdleTimeouts: &pb.IdleTimeouts{}},
		UpdateMask: &fieldmaskpb.FieldMask{},
	}
	for _, arg := range given {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, usagef("%q is not NAME=VALUE", arg)
		}
		i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
		if i < 0 {
			return nil, usagef("there is no setting %q; see `sessionctl settings get`", name)
		}
		path := cmp.Or(settings[i].path, name)
		if slices.Contains(req.UpdateMask.Paths, path) {
			return nil, usagef("%s is given twice", name)
		}
		if err := settings[i].set(req.Settings, value); err != nil {
			return nil, usagef("%s: %w", name, err)
		}
		req.UpdateMask.Paths = append(req.UpdateMask.Paths, path)
	}
	return req, nil
}
