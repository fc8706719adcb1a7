package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (l *loader) radius(v value) {
	c := &l.config.RADIUS
	keys := v.mapping(fields{
		"listen":        func(v value) { c.Listen = v.listens() },
		"status_server": func(v value) { v.boolean(&c.StatusServer) },
		"infer_realms":  func(v value) { v.boolean(&c.InferRealms) },
		"radsec":        l.radsec,
		"clients":       l.clients,
	})
	v.require(keys, "clients")
	l.checkCertificates(v)
	if a, b, ok := inferrable(c.Clients); ok && !keys["infer_realms"] {
		v.child("infer_realms").warnf("is not set: client %s speaks for a NAS of %s, or the other way round, once it tells all of one of its sessions; write false if no two clients without a realm report the same NAS, else true", b, a)
	}
}

// listens reads a list of host:port without repetitions.
func (v value) listens() []string {
	var all []string
	seen := map[string]bool{}
	for _, e := range v.sequence() {
		var s string
		switch {
		case !e.listen(&s):
		case seen[s] && !strings.HasSuffix(s, ":0"):
			e.errorf("%s is there twice; keep one", s)
		default:
			all = append(all, s)
		}
		seen[s] = true
	}
	return all
}

func (l *loader) clients(v value) {
	var all []listedClient
	for _, e := range v.sequence() {
		c := l.client(e)
		all = append(all, c)
		l.config.RADIUS.Clients = append(l.config.RADIUS.Clients, c.client)
	}
	checkClients(all)
}

var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func (l *loader) client(v value) listedClient {
	listed := listedClient{value: v, client: RADIUSClient{
		StatusServer: true, NASIdentity: "identifier", Restarts: "believe", Services: "ignore",
	}}
	c := &listed.client
	keys := v.mapping(fields{
		"name":   func(v value) { v.matching(&c.Name, clientName, "letters, digits, dot, dash and underscore") },
		"prefix": listed.source,
		"prefixes": func(v value) {
			for _, e := range v.sequence() {
				listed.source(e)
			}
		},
		"inside": func(v value) {
			if !v.empty() {
				c.Inside = claims(new([]claim), v)
			}
		},
		"groups":                        func(v value) { l.clientGroups(v, c) },
		"max_subscribers":               func(v value) { v.natural(&c.MaxSubscribers) },
		"realm":                         func(v value) { v.matching(&c.Realm, clientName, "letters, digits, dot, dash and underscore") },
		"nas_identity":                  func(v value) { v.oneOf(&c.NASIdentity, "identifier", "address", "both") },
		"restarts":                      func(v value) { v.oneOf(&c.Restarts, "believe", "ignore", "confirm") },
		"services":                      func(v value) { v.oneOf(&c.Services, "ignore", "count") },
		"service_marks":                 func(v value) { c.ServiceMarks = v.serviceMarks() },
		"secret":                        func(v value) { v.secret(&c.Secret) },
		"secret_file":                   func(v value) { v.secretFile(l.dir, &c.Secret) },
		"previous_secret":               func(v value) { v.secret(&c.PreviousSecret) },
		"previous_secret_file":          func(v value) { v.secretFile(l.dir, &c.PreviousSecret) },
		"certificate":                   func(v value) { v.certificate(&c.Certificate) },
		"require_message_authenticator": func(v value) { v.boolean(&c.RequireMessageAuthenticator) },
		"acknowledge_incomplete":        func(v value) { v.boolean(&c.AcknowledgeIncomplete) },
		"status_server":                 func(v value) { v.boolean(&c.StatusServer) },
		"record_ttl": func(v value) {
			c.RecordTTL = new(time.Duration)
			v.duration(c.RecordTTL, 0)
		},
	})
	v.require(keys, "name")
	keys["prefix"] = keys["prefix"] || keys["prefixes"]
	if c.Certificate == (Certificate{}) {
		v.require(keys, "prefix")
	}
	v.checkSecrets(keys)
	return listed
}

// clientGroups reads the names of the groups that bound a client.
func (l *loader) clientGroups(v value, c *RADIUSClient) {
	if v.empty() {
		return
	}
	for _, e := range v.sequence() {
		if name, ok := e.scalar(); ok {
			c.Groups = append(c.Groups, name)
			l.bounds = append(l.bounds, e)
		}
	}
}

// checkClientGroups checks that the groups in clients' bounds exist.
func (l *loader) checkClientGroups() {
	for _, v := range l.bounds {
		name, _ := v.scalar()
		if !slices.ContainsFunc(l.config.Groups, func(g Group) bool { return g.Name == name }) {
			v.errorf("%q is no group; write the name of one that stands under groups", name)
		}
	}
}

// source reads a source prefix of the client's datagrams.
func (c *listedClient) source(v value) {
	if p, ok := v.prefix(); ok {
		c.client.Prefixes = append(c.client.Prefixes, p)
		c.sources = append(c.sources, claim{v, p})
	}
}

// checkSecrets checks that a client with datagrams has one secret, and at most
// one previous one.
func (v value) checkSecrets(keys map[string]bool) {
	secret := keys["secret"] || keys["secret_file"]
	previous := keys["previous_secret"] || keys["previous_secret_file"]
	for _, k := range []string{"secret", "previous_secret"} {
		if keys[k] && keys[k+"_file"] {
			v.child(k+"_file").errorf("stands beside %s; keep one of them", k)
		}
	}
	switch {
	case keys["prefix"] && !secret:
		v.child("secret").errorf("is missing; write secret or secret_file")
	case !keys["prefix"] && secret:
		v.child("secret").errorf("is for datagrams, which need a prefix; the secret of RadSec is always the same")
	case previous && !secret:
		v.child("previous_secret").errorf("stands without secret; the one in force belongs there")
	}
}

// secret refuses the empty secret, with which any sender could pass for the
// client (RFC 2865 section 3).
func (v value) secret(to *[]byte) {
	if s, ok := v.scalar(); ok {
		v.report.secrets = true
		v.setSecret(s, to)
	}
}

func (v value) secretFile(dir string, to *[]byte) {
	var path string
	data := v.privateFile(dir, &path)
	if path == "" {
		v.errorf("is empty; write the path of a file that has the secret")
	} else if data != nil {
		v.setSecret(strings.TrimRight(string(data), "\r\n"), to)
	}
}

func (v value) setSecret(s string, to *[]byte) {
	if s == "" {
		v.errorf("the secret is empty; write the one that the client has")
		return
	}
	*to = []byte(s)
}

// matching reads text of a certain form.
func (v value) matching(to *string, form *regexp.Regexp, says string) {
	s, ok := v.scalar()
	switch {
	case !ok:
	case !form.MatchString(s):
		v.errorf("%q is not a name here; write %s", s, says)
	default:
		*to = s
	}
}

// vendorAttribute is the notation of vendors' reference manuals.
var vendorAttribute = regexp.MustCompile(`^26-([0-9]{1,10})-([0-9]{1,3})$`)

// serviceMarks reads a list of attributes such as 26-2352-190.
func (v value) serviceMarks() []VendorAttribute {
	var marks []VendorAttribute
	for _, e := range v.sequence() {
		s, ok := e.scalar()
		if !ok {
			continue
		}
		parts := vendorAttribute.FindStringSubmatch(s)
		if parts == nil {
			e.errorf("%q is no vendor's attribute; write 26, the vendor's number and the attribute's, such as 26-2352-190", s)
			continue
		}
		vendor, errVendor := strconv.ParseUint(parts[1], 10, 32)
		kind, errKind := strconv.ParseUint(parts[2], 10, 8)
		if errVendor != nil || errKind != nil || vendor == 0 || kind == 0 {
			e.errorf("%q is no vendor's attribute; a vendor has a number up to 4294967295, an attribute one up to 255", s)
			continue
		}
		marks = append(marks, VendorAttribute{Vendor: uint32(vendor), Type: uint8(kind)})
	}
	return marks
}
