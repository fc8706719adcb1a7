package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// mappingCommands are the commands that make, show and delete mappings.
type mappingCommands struct{ *app }

func (a mappingCommands) command() *cobra.Command {
	c := group("mapping", "Public ports that belong to subscribers", a.createCommand(), a.listCommand(), a.deleteCommand())
	c.Aliases = []string{"mappings"}
	return c
}

func (a mappingCommands) createCommand() *cobra.Command {
	req := &pb.CreateMappingRequest{}
	var protocolName string
	var lifetime time.Duration
	var order orderFlags
	c := &cobra.Command{
		Use:   "create [INSIDE]:PORT [OUTSIDE:PORT] --protocol P [--owner USER]",
		Short: "Give a subscriber a public port, of those that its group sets apart",
		Long: "Give a subscriber a public port, of those that its group sets apart\n" +
			"(static_ports): everybody reaches the subscriber's port there. With --owner it\n" +
			"is the subscriber's wherever it is online, without it whoever's has the inside\n" +
			"address. Without OUTSIDE:PORT a free one is chosen. It stays the same until it\n" +
			"is deleted, or its lifetime is over.",
		Example: "  sessionctl mapping create :22 --owner alice --protocol tcp --lifetime 24h\n" +
			"  sessionctl mapping create 100.64.0.7:27015 198.51.100.1:60053 --protocol udp",
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, given []string) (err error) {
			if err := createRequest(req, given); err != nil {
				return err
			}
			if req.Protocol, err = mappedProtocol(protocolName); err != nil {
				return err
			}
			if lifetime < 0 {
				return usagef("--lifetime must not be negative")
			}
			if lifetime > 0 {
				req.Lifetime = durationpb.New(lifetime)
			}
			req.Reason, req.RequestId, req.ValidateOnly = order.reason, order.requestID, order.validateOnly
			return a.create(c.Context(), req)
		},
	}
	flags := c.Flags()
	flags.StringVar(&req.Group, "group", "", "the `group`; may be left out where there is only one, or with an inside address")
	flags.StringVar(&req.UserName, "owner", "", "the `User-Name` of the subscriber, in the place of an inside address")
	flags.StringVar(&protocolName, "protocol", "", "`protocol`: tcp or udp")
	flags.DurationVar(&lifetime, "lifetime", 0, "delete it after this `time`; 0 for never")
	a.completePicks(c)
	order.register(c)
	complete(c, "lifetime")
	complete(c, "protocol", "tcp", "udp")
	return c
}

// createRequest reads the arguments.
func createRequest(req *pb.CreateMappingRequest, given []string) (err error) {
	if req.InsideAddress, req.InsidePort, err = endpoint("[INSIDE]:PORT", given[0]); err != nil {
		return err
	}
	switch {
	case req.GetInsidePort() == 0:
		return usagef("say which port of the subscriber: %s:PORT", given[0])
	case req.GetInsideAddress() == "" && req.GetUserName() == "":
		return usagef("say whose port: INSIDE:PORT, or --owner USER")
	case req.GetInsideAddress() != "" && req.GetUserName() != "":
		return usagef("write :%d with --owner, or an inside address without it", req.GetInsidePort())
	case req.GetInsideAddress() != "":
		if req.InsideAddress, err = address(req.GetInsideAddress()); err != nil {
			return err
		}
	}
	if len(given) < 2 {
		return nil
	}
	req.OutsideAddress, req.OutsidePort, err = outsideEndpoint(given[1])
	return err
}

// mappedProtocol reads --protocol, which is needed.
func mappedProtocol(name string) (pb.Protocol, error) {
	p, err := protocol(name)
	if err == nil && p == pb.Protocol_PROTOCOL_UNSPECIFIED {
		err = usagef("say which protocol: --protocol tcp or --protocol udp")
	}
	return p, err
}

func (a mappingCommands) create(ctx context.Context, req *pb.CreateMappingRequest) error {
	client, err := a.mappings()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.CreateMapping(ctx, req)
	if err != nil {
		return err
	}
	if m := res.GetMapping(); req.GetValidateOnly() {
		return a.tried(res, "map %s to port %d", net.JoinHostPort(m.GetOutsideAddress(), number(m.GetOutsidePort())), m.GetInsidePort())
	}
	return a.showMappings([]*pb.Mapping{res.GetMapping()})
}

func (a mappingCommands) listCommand() *cobra.Command {
	req := &pb.ListMappingsRequest{PageSize: pageSize}
	var kind string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the mappings, those in quarantine included",
		Example: "  sessionctl mapping list --owner alice\n  sessionctl mapping list --outside 198.51.100.1",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := prefix("--inside", req.GetInside()); err != nil {
				return err
			}
			if err := prefix("--outside", req.GetOutside()); err != nil {
				return err
			}
			value, known := pb.MappingKind_value["MAPPING_KIND_"+strings.ToUpper(kind)]
			if kind != "" && (!known || value == 0) {
				return usagef("--kind %q is not known; write static or pcp", kind)
			}
			req.Kind = pb.MappingKind(value)
			return a.list(c.Context(), req)
		},
	}
	flags := c.Flags()
	flags.StringVar(&req.Group, "group", "", "only this `group`")
	flags.StringVar(&req.UserName, "owner", "", "only those of this `User-Name`")
	flags.StringVar(&req.Inside, "inside", "", "only those of inside addresses in this `prefix`")
	flags.StringVar(&req.Outside, "outside", "", "only this outside `address` or prefix")
	flags.StringVar(&kind, "kind", "", "only those of this `kind`: static, which the operator made, or pcp, which subscribers asked for")
	complete(c, "kind", "static", "pcp")
	a.completePicks(c)
	a.listFlags(c, mappingHeader)
	return c
}

func (a mappingCommands) list(ctx context.Context, req *pb.ListMappingsRequest) error {
	client, err := a.mappings()
	if err != nil {
		return err
	}
	out := newList(&a.printer, mappingHeader, a.mappingRow)
	out.leastImportant("GROUP", "AGE", "EXPIRES IN", "AT", "HELD FOR")
	out.nobody = "no such mapping"
	err = eachPage(ctx, func(ctx context.Context, token string) ([]*pb.Mapping, string, error) {
		ctx, cancel := a.bounded(ctx)
		defer cancel()
		req.PageToken = token
		page, err := client.ListMappings(ctx, req)
		return page.GetMappings(), page.GetNextPageToken(), err
	}, out.addAll)
	if err != nil {
		return err
	}
	return out.end()
}

func (a mappingCommands) deleteCommand() *cobra.Command {
	req := &pb.DeleteMappingRequest{}
	var protocolName string
	var yes bool
	var order orderFlags
	c := &cobra.Command{
		Use:               "delete OUTSIDE:PORT --protocol P",
		Short:             "Delete a mapping, with the sessions through it",
		Example:           "  sessionctl mapping delete 198.51.100.1:60022 --protocol tcp",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, given []string) (err error) {
			if req.OutsideAddress, req.OutsidePort, err = outsideEndpoint(given[0]); err != nil {
				return err
			}
			if req.Protocol, err = mappedProtocol(protocolName); err != nil {
				return err
			}
			req.Reason, req.RequestId, req.ValidateOnly = order.reason, order.requestID, order.validateOnly
			if err := a.confirm(yes || order.validateOnly, func() (string, error) {
				return fmt.Sprintf("Delete the mapping of %s %s, and end its sessions?", protocolName, given[0]), nil
			}); err != nil {
				return err
			}
			return a.remove(c.Context(), req)
		},
	}
	flags := c.Flags()
	flags.StringVar(&req.Group, "group", "", "only of this `group`")
	flags.StringVar(&protocolName, "protocol", "", "`protocol`: tcp or udp")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.completeGroups(c)
	order.register(c)
	complete(c, "protocol", "tcp", "udp")
	return c
}

func (a mappingCommands) remove(ctx context.Context, req *pb.DeleteMappingRequest) error {
	client, err := a.mappings()
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	res, err := client.DeleteMapping(ctx, req)
	if err != nil {
		return err
	}
	if req.GetValidateOnly() {
		return a.tried(res, "end %s", plural(res.GetSessionsEnded(), "session"))
	}
	return a.answer(res, "deleted; "+plural(res.GetSessionsEnded(), "session")+" ended")
}

var mappingHeader = []string{"GROUP", "PROTOCOL", "OUTSIDE", "OWNER", "PORT", "KIND", "AT", "STATE", "AGE", "EXPIRES IN", "HELD FOR"}

func (p *printer) mappingRow(m *pb.Mapping) []string {
	return []string{
		m.GetGroup(), protocolName(m.GetProtocol()), net.JoinHostPort(m.GetOutsideAddress(), strconv.Itoa(int(m.GetOutsidePort()))),
		or(m.GetUserName(), m.GetInsideAddress()), number(m.GetInsidePort()), mappingKind(m), or(m.GetPresentAddress(), none), mappingState(m),
		p.age(m.GetCreatedAt()), p.until(m.GetExpiresAt()), p.until(m.GetHoldUntil()),
	}
}

func (a *app) showMappings(mappings []*pb.Mapping) error {
	out := newList(&a.printer, mappingHeader, a.mappingRow)
	if err := out.addAll(mappings); err != nil {
		return err
	}
	return out.end()
}

// mappingKind is the kind of a mapping in one word: who asked for it.
func mappingKind(m *pb.Mapping) string {
	return strings.ToLower(strings.TrimPrefix(m.GetKind().String(), "MAPPING_KIND_"))
}

// mappingState is the state of a mapping in one word.
func mappingState(m *pb.Mapping) string {
	switch {
	case m.GetHoldUntil() != nil:
		return "held"
	case m.GetInForce():
		return "in force"
	case m.GetPresentAddress() != "":
		return "pending"
	}
	return "offline"
}
