package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// completionTimeout bounds the shell's wait for a daemon that is away.
const completionTimeout = 2 * time.Second

// completer completes flags and arguments to names that the daemon knows.
type completer struct{ *connection }

// complete makes a flag complete to the given words, and never to file names.
func complete(c *cobra.Command, flag string, words ...string) {
	register(c, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// register registers a flag's completion. It panics if the command does not
// have the flag.
func register(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic("sessionctl: " + err.Error())
	}
}

// completePicks adds completions to the filter flags that the command has.
func (k completer) completePicks(c *cobra.Command) {
	k.completeGroups(c)
	for _, flag := range []string{"user", "owner"} {
		if c.Flags().Lookup(flag) != nil {
			k.completeUserFlag(c, flag)
		}
	}
	if c.Flags().Lookup("outside") != nil {
		register(c, "outside", func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return k.completePools(c, nil, typed)
		})
	}
	if c.Flags().Lookup("nas") != nil {
		k.completeNASFlag(c)
	}
	if c.Flags().Lookup("remote") != nil {
		complete(c, "remote") // the daemon does not know where subscribers may go
	}
	if c.Flags().Lookup("inside") != nil {
		register(c, "inside", func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return k.completeInside(c, nil, typed)
		})
	}
}

func (k completer) completeGroups(c *cobra.Command) {
	if c.Flags().Lookup("group") == nil {
		return
	}
	register(c, "group", func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return k.groupNames(c.Context(), typed), cobra.ShellCompDirectiveNoFileComp
	})
}

func (k completer) groupNames(ctx context.Context, typed string) []string {
	client, err := k.nat()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	res, err := client.ListPools(ctx, &pb.ListPoolsRequest{})
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range res.GetPools() {
		if strings.HasPrefix(p.GetGroup(), typed) {
			names = append(names, p.GetGroup())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// completePools completes an outside prefix, with its group as description.
func (k completer) completePools(c *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	if len(given) > 0 {
		return nil, directive
	}
	client, err := k.nat()
	if err != nil {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
	defer cancel()
	res, err := client.ListPools(ctx, &pb.ListPoolsRequest{})
	if err != nil {
		return nil, directive
	}
	var words []string
	for _, p := range res.GetPools() {
		if strings.HasPrefix(p.GetOutsidePrefix(), typed) {
			words = append(words, p.GetOutsidePrefix()+"\t"+p.GetGroup())
		}
	}
	return words, directive
}

// completeInside completes an inside address, with the user as description.
func (k completer) completeInside(c *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	if len(given) > 0 {
		return nil, directive
	}
	client, err := k.subscribers()
	if err != nil {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
	defer cancel()
	res, err := client.ListSubscribers(ctx, &pb.ListSubscribersRequest{PageSize: pageSize, Inside: typedPrefix(typed)})
	if err != nil {
		return nil, directive
	}
	var words []string
	for _, s := range res.GetSubscribers() {
		if strings.HasPrefix(s.GetInsideAddress(), typed) {
			words = append(words, s.GetInsideAddress()+"\t"+s.GetUserName())
		}
	}
	return words, directive
}

// completeUserFlag completes the User-Names of the first subscribers, with their addresses as
// descriptions.
func (k completer) completeUserFlag(c *cobra.Command, flag string) {
	register(c, flag, func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp
		client, err := k.subscribers()
		if err != nil {
			return nil, directive
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
		defer cancel()
		res, err := client.ListSubscribers(ctx, &pb.ListSubscribersRequest{PageSize: pageSize})
		if err != nil {
			return nil, directive
		}
		var words []string
		for _, s := range res.GetSubscribers() {
			if s.GetUserName() != "" && strings.HasPrefix(s.GetUserName(), typed) {
				words = append(words, s.GetUserName()+"\t"+s.GetInsideAddress())
			}
		}
		slices.Sort(words)
		return slices.Compact(words), directive
	})
}

// completeNASFlags adds completions to the flags of commands about NASes.
func (k completer) completeNASFlags(c *cobra.Command) {
	register(c, "client", func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return k.nasWords(c.Context(), typed, func(n *pb.Nas) (word, about string) { return n.GetClient(), "" })
	})
	if c.Flags().Lookup("nas") != nil {
		k.completeNASFlag(c)
	}
}

func (k completer) completeNASFlag(c *cobra.Command) {
	register(c, "nas", func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return k.completeNAS(c, nil, typed)
	})
}

// completeNAS completes the name of a NAS, with its client as description.
func (k completer) completeNAS(c *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return k.nasWords(c.Context(), typed, func(n *pb.Nas) (word, about string) { return n.GetName(), n.GetClient() })
}

// nasWords returns one word of each of the first NASes, without repetitions, if
// it begins as typed.
func (k completer) nasWords(ctx context.Context, typed string, of func(*pb.Nas) (word, about string)) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	client, err := k.nases()
	if err != nil {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	res, err := client.ListNases(ctx, &pb.ListNasesRequest{PageSize: pageSize})
	if err != nil {
		return nil, directive
	}
	var words []string
	seen := map[string]bool{}
	for _, n := range res.GetNases() {
		word, about := of(n)
		if seen[word] || !strings.HasPrefix(word, typed) {
			continue
		}
		seen[word] = true
		if about != "" {
			about = "\t" + about
		}
		words = append(words, word+about)
	}
	slices.Sort(words)
	return words, directive
}

// typedPrefix is the prefix of the complete numbers typed so far: for
// "100.64.3" and "100.64." it is 100.64.0.0/16.
func typedPrefix(typed string) string {
	parts := strings.Split(typed, ".")
	whole := parts[:len(parts)-1]
	if len(whole) == 0 || len(whole) > 3 {
		return ""
	}
	octets := append(slices.Clone(whole), "0", "0", "0", "0")[:4]
	text := strings.Join(octets, ".") + "/" + number(uint32(8*len(whole)))
	if prefix("", text) != nil {
		return ""
	}
	return text
}

func completeSettings(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	if strings.HasPrefix(typed, settings[0].name+"=") {
		return []string{settings[0].name + "=on", settings[0].name + "=off", settings[0].name + "=observe"}, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range settings {
		names = append(names, s.name+"=")
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
