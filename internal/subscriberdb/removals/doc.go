// Package removals detects records that other programs remove from Redis, or that expire
// there: by the notifications of Redis, which it keeps turned on, and by scans of the
// online addresses, because notifications can be lost and not every Redis lets them be
// turned on.
//
// Reading order:
//
//	watcher.go       a Watcher: subscriptions to all servers
//	notifications.go the setting of each server
//	scan.go          detection of records that are gone without a notification
package removals
