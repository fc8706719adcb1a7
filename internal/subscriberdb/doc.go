// Package subscriberdb is the Redis store of subscriber records: their keys,
// their atomic update, the change feed written in the same step, and their
// expiry.
package subscriberdb
