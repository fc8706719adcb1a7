// Package removals notices records that others remove from Redis, or that expire there: by
// the notifications of Redis, which it keeps turned on, and by walks over who is online, since
// notifications are lossy and not every Redis lets them be turned on.
//
// Reading order:
//
//	watcher.go       a Watcher: subscriptions to all servers
//	notifications.go the setting of each server
//	scan.go          records that are gone without a notification
package removals
