package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

var tableChecks = []Check{
	{"translations", "rules of others that translate subscribers' flows", checkTranslations},
	{"untracked", "rules of others that keep packets from conntrack", checkUntracked},
	{"quiet", "rules of others that make conntrack leave out events", checkQuiet},
	{"firewall", "chains of others at the forward hook that drop by default", checkFirewall},
	{"flowtables", "flowtables of others with inside or outside interfaces", checkFlowtables},
}

// place says where a rule is, as nft names it.
func (r *Rule) place() string {
	return fmt.Sprintf("%s %s %s handle %d", r.Family, r.Table, r.Chain, r.Handle)
}

// deletion returns the command that deletes rules.
func (c *Config) deletion(rules ...Rule) string {
	commands := make([]string, len(rules))
	for i, r := range rules {
		commands[i] = c.inNamespace("nft delete rule " + strings.Join([]string{r.Family, Quote(r.Table), Quote(r.Chain), fmt.Sprintf("handle %d", r.Handle)}, " "))
	}
	return strings.Join(commands, " && ")
}

// against returns a finding about a rule that concerns subscribers. Where the rule has conditions that
// are not read, it may well leave them alone, and a person has to look before it is deleted.
func (f *Facts) against(r Rule, does, why string) Finding {
	if r.Narrow {
		return Finding{
			Severity: Should, Found: "a rule of others may " + does + ", by conditions that are not looked at here: " + r.place(), Why: why,
			Note: f.Config.inNamespace("nft -a list chain "+strings.Join([]string{r.Family, Quote(r.Table), Quote(r.Chain)}, " ")) + " shows it; it is well if it leaves inside addresses alone",
		}
	}
	return Finding{
		Severity: Must, Found: "rules of others " + does + ": " + r.place(), Why: why, Command: f.Config.deletion(r),
		Note: "or change the rule so that it leaves inside addresses alone; change the file that it was loaded from, too",
	}
}

// concerns reports whether a rule may match packets of subscribers to the internet.
func (f *Facts) concerns(r *Rule) bool {
	if r.Input != "" && !overlapping(f.Config.Inside, r.Input) || r.Output != "" && !overlapping(f.Config.Outside, r.Output) {
		return false
	}
	if !r.Source.IsValid() {
		return true
	}
	return slices.ContainsFunc(f.Config.Groups, func(g Group) bool { return overlaps(g.Inside, r.Source) })
}

// overlapping reports whether a rule's interface, which may end in *, is one of a list or may be.
func overlapping(list []string, name string) bool {
	return matches(list, name) || slices.ContainsFunc(list, func(l string) bool { return matches([]string{name}, l) })
}

func overlaps(prefixes []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, p.Overlaps)
}

// Hooks and the priority of sessiond's translation.
const (
	hookForward     = "forward"
	hookPostrouting = "postrouting"

	prioritySourceNAT = 100
)

// checkTranslations finds the rules of chains that decide on a new flow before sessiond's does:
// the first nat chain with a matching rule does.
func checkTranslations(f *Facts) (found []Finding) {
	before := map[string]bool{} // tables with such a chain: its rules may jump to others
	for _, c := range f.Chains {
		if c.Type == "nat" && c.Hook == hookPostrouting && c.Priority <= prioritySourceNAT {
			before[c.Family+" "+c.Table] = true
		}
	}
	for _, r := range f.Rules {
		if r.Translates && before[r.Family+" "+r.Table] && f.concerns(&r) {
			found = append(found, f.against(r, "translate subscribers' flows",
				"such flows leave from an address and ports of no binding: nobody can tell whose they were, and they outlive their subscriber's removal"))
		}
	}
	return found
}

func checkUntracked(f *Facts) (found []Finding) {
	for _, r := range f.Rules {
		if r.Untracked && f.concerns(&r) {
			found = append(found, f.against(r, "keep packets from conntrack (notrack)",
				"packets that are not tracked are not translated, and are dropped where they come from a subscriber"))
		}
	}
	return found
}

func checkQuiet(f *Facts) (found []Finding) {
	for _, r := range f.Rules {
		if r.Quiet {
			found = append(found, Finding{
				Severity: Should, Found: "a rule of others makes conntrack leave out events (ct event set, CT --ctevents): " + r.place(),
				Why:     "sessions are counted by audits alone, and removals are proved by walks through the whole table",
				Command: f.Config.deletion(r), Note: "or let the rule tell new and related, too",
			})
		}
	}
	return found
}

// checkFirewall finds chains that drop what they do not accept, and do not accept what
// subscribers forward. Where one jumps to other chains, or has narrower rules, nothing is certain.
func checkFirewall(f *Facts) (found []Finding) {
	for _, c := range f.Chains {
		if c.Hook != hookForward || c.Type != "filter" || !c.PolicyDrop {
			continue
		}
		var refused []string
		severity := Must
		for _, pair := range f.Config.ways() {
			if !f.accepts(c, pair[0], pair[1]) {
				refused = append(refused, fmt.Sprintf("iifname %q oifname %q", pair[0], pair[1]))
			}
		}
		if len(refused) == 0 {
			continue
		}
		if slices.ContainsFunc(f.Rules, func(r Rule) bool { return r.in(c) && (r.Accepts || r.Jumps) }) {
			severity = Should
		}
		commands := make([]string, len(refused))
		for i, match := range refused {
			commands[i] = f.Config.inNamespace("nft insert rule " + strings.Join([]string{c.Family, Quote(c.Table), Quote(c.Name), Quote(match + " counter accept")}, " "))
		}
		found = append(found, Finding{
			Severity: severity,
			Found:    fmt.Sprintf("chain %s %s %s drops what it does not accept, and accepts not all of: %s", c.Family, c.Table, c.Name, strings.Join(refused, ", ")),
			Why:      "packets of subscribers are dropped there, whatever sessiond says; which replies and mappings may come in is decided by sessiond's own chains",
			Command:  strings.Join(commands, " && "),
			Note:     "or narrower rules of your own; write them into the file that the table was loaded from, too",
		})
	}
	return found
}

func (r *Rule) in(c Chain) bool {
	return r.Family == c.Family && r.Table == c.Table && r.Chain == c.Name
}

// ways returns the pairs of interfaces by which packets of subscribers come in and leave: to the
// internet, back, and to each other.
func (c *Config) ways() (pairs [][2]string) {
	for _, inside := range c.Inside {
		for _, outside := range c.Outside {
			pairs = append(pairs, [2]string{inside, outside}, [2]string{outside, inside})
		}
		for _, other := range c.Inside {
			pairs = append(pairs, [2]string{inside, other})
		}
	}
	return pairs
}

// accepts reports whether a chain accepts all packets that come in by one interface and leave by
// another one.
func (f *Facts) accepts(c Chain, input, output string) bool {
	return slices.ContainsFunc(f.Rules, func(r Rule) bool {
		return r.in(c) && r.Accepts && !r.Narrow && !r.Source.IsValid() &&
			(r.Input == "" || matches([]string{r.Input}, input)) && (r.Output == "" || matches([]string{r.Output}, output))
	})
}

// checkFlowtables goes by nat.flowtables.
func checkFlowtables(f *Facts) (found []Finding) {
	for _, t := range f.Flowtables {
		if !slices.ContainsFunc(t.Devices, f.Config.Serves) || f.Config.Flowtables == "accept" && !t.Hardware {
			continue
		}
		adding := slices.DeleteFunc(slices.Clone(f.Rules), func(r Rule) bool {
			return r.Family != t.Family || r.Table != t.Table || r.Flowtable != t.Name
		})
		finding := Finding{
			Severity: Must,
			Found:    fmt.Sprintf("flowtable of others: %s %s %s, devices %s", t.Family, t.Table, t.Name, strings.Join(t.Devices, " ")),
			Why:      "packets in it pass no gate and no limit; a removal cuts them only as their entries are deleted",
			Note:     "or set nat.flowtables to accept; own has sessiond make one (docs/flowtables.md)",
		}
		if t.Hardware {
			finding.Why = "hardware may forward for a second or more behind the removal of a subscriber, and no receipt tells of it"
			finding.Note = "or take the flag offload out of it"
		}
		deletion := f.Config.inNamespace("nft delete flowtable " + strings.Join([]string{t.Family, Quote(t.Table), Quote(t.Name)}, " "))
		if len(adding) > 0 {
			deletion = f.Config.deletion(adding...) + " && " + deletion
		}
		finding.Command = deletion
		found = append(found, finding)
	}
	return found
}
