package subscriberdb

// boundTexts are what the log says where a client has its share.
var boundTexts = map[Bound]string{
	BoundNASes:      "a RADIUS client tells of more NASes than there is room for; no clock and no restart is remembered of those",
	BoundTombstones: "a RADIUS client ends more sessions than can be remembered; the end of the rest is remembered for 5 minutes",
	BoundLinks:      "a session has more links than are kept",
}

// limit counts and logs that a client has no room for more.
func (r *eventReports) limit(client string, b Bound) {
	r.limited(client, b)
	if suppressed, ok := r.limitLogs[b].Allow(r.now()); ok {
		r.logger.Warn(boundTexts[b], "client", client, "suppressed", suppressed, "alarm", "sessiond_accounting_bounds_reached_total")
	}
}
