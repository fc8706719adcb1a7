package conntrack

// learnOwn updates the machine's own addresses, for entries that begin from now on. An
// unknown one only delays a proof. While links come and go the kernel cannot always list
// them; then the known ones are kept.
func (t *Table) learnOwn() {
	if t.own == nil {
		return
	}
	list, err := t.own()
	if err != nil {
		t.log.Debug("conntrack: the machine's own addresses cannot be listed", "error", err)
		return
	}
	own := make(askedAddrs, len(list))
	for a := range list {
		if addr, ok := fromAddr(a); ok {
			own[addr] = struct{}{}
		}
	}
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	t.index.own = own
}

// portless reports whether an entry takes no port of a block: it is untranslated, or a rule
// redirected it to the machine itself, as to a captive portal.
func (x *index) portless(f *flow) bool { return f.plain() || x.own.Contains(f.reply.src) }
