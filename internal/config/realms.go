package config

import (
	"cmp"
	"reflect"
)

// listedClient is an element of radius.clients, with its position.
type listedClient struct {
	value
	client  RADIUSClient
	sources []claim
}

// setting is one of a client's settings, by key.
type setting struct {
	key   string
	value any
}

// ofRealm returns the settings that must agree in all clients of one realm,
// because any of them may report a given session.
func (c *RADIUSClient) ofRealm() []setting {
	return []setting{
		{"nas_identity", c.NASIdentity}, {"restarts", c.Restarts}, {"services", c.Services},
		{"service_marks", c.ServiceMarks}, {"record_ttl", c.RecordTTL},
	}
}

// ofName returns the settings that must agree in all elements of one name: all
// except sources and authentication.
func (c *RADIUSClient) ofName() []setting {
	return append(c.ofRealm(),
		setting{"realm", c.Realm}, setting{"inside", c.Inside}, setting{"groups", c.Groups},
		setting{"max_subscribers", c.MaxSubscribers},
		setting{"require_message_authenticator", c.RequireMessageAuthenticator},
		setting{"acknowledge_incomplete", c.AcknowledgeIncomplete},
		setting{"status_server", c.StatusServer})
}

// checkClients checks the clients against each other.
func checkClients(all []listedClient) {
	names, realms := map[string]*listedClient{}, map[string]*listedClient{}
	for i := range all {
		c := &all[i]
		if first := names[c.client.Name]; first != nil && c.client.Name != "" {
			c.agree(first, first.client.ofName(), c.client.ofName(), "one name is one client")
		}
		if first := realms[c.client.Realm]; first != nil && first.client.Name != c.client.Name {
			c.agree(first, first.client.ofRealm(), c.client.ofRealm(), "one realm has the same NASes")
		}
		names[c.client.Name] = cmp.Or(names[c.client.Name], c)
		if c.client.Realm != "" {
			realms[c.client.Realm] = cmp.Or(realms[c.client.Realm], c)
		}
	}
	for realm, c := range realms {
		if other := names[realm]; other != nil && other.client.Realm != realm {
			c.child("realm").errorf("%s is the name of the client in %s (line %d), which is not of this realm; put it into the realm or name the realm otherwise",
				realm, other.key, other.line)
		}
	}
	checkSources(all)
}

// agree reports settings that differ from those of an earlier element.
func (c *listedClient) agree(first *listedClient, want, have []setting, because string) {
	for i, w := range want {
		if !reflect.DeepEqual(w.value, have[i].value) {
			c.child(w.key).errorf("is not as in %s (line %d); %s: write the same in both, or leave it out in both", first.key, first.line, because)
		}
	}
}

// checkSources checks that each packet and connection belongs to one client
// only.
func checkSources(all []listedClient) {
	prefixes, certificates := map[string]claim{}, map[Certificate]bool{}
	for _, c := range all {
		for _, s := range c.sources {
			if before, twice := prefixes[s.prefix.String()]; twice {
				s.errorf("%v is there twice, in %s (line %d) too; a packet must have one client", s.prefix, before.key, before.line)
			} else {
				prefixes[s.prefix.String()] = s
			}
		}
		if certificates[c.client.Certificate] && c.client.Certificate != (Certificate{}) {
			c.child("certificate").errorf("is there twice; a connection must have one client")
		}
		certificates[c.client.Certificate] = true
	}
}

// inferrable returns the first two clients that would be taken for proxies of
// one NAS if they reported the same session: neither has a realm, and at most
// one has bounds.
func inferrable(clients []RADIUSClient) (a, b string, ok bool) {
	bounded := func(c *RADIUSClient) bool { return len(c.Inside)+len(c.Groups) > 0 }
	for i := range clients {
		for j := range clients[:i] {
			first, second := &clients[j], &clients[i]
			if first.Name != second.Name && first.Realm == "" && second.Realm == "" && !(bounded(first) && bounded(second)) {
				return first.Name, second.Name, true
			}
		}
	}
	return "", "", false
}
