// Package console serves pages for a NOC's browser: the state of the daemon, the blocks of each
// outside address, subscribers, and events as they happen. It reads through the same backends as
// package control. Who has signed in with a token can also change things, by calls of the API:
// package control checks them, and writes their audit entries.
//
// Pages are made by html/template from embedded files, and work without a script; the one script
// keeps them current. All that a RADIUS packet says is hostile text: it is escaped by package
// rawtext, then by the template, and set by the script as text, never as markup.
//
// Reading order:
//
//	console.go     the Console: its Options, pages and task
//	backends.go    the interfaces behind the pages
//	callers.go     requests that are refused, and the headers of every answer
//	visitor.go     who sends a request; signin.go: how a visitor signs in and out
//	render.go      templates, assets, errors
//
// Pages, a file each:
//
//	overview.go    the facts about the whole daemon; history.go: rates and percentiles of an hour
//	outside.go     outside prefixes, and the blocks of one outside address; blockmap.go: their drawing
//	subscribers.go lists of subscribers
//	customer.go    one inside address: its subscriber, bindings, timeline and sessions
//	removals.go    removals that a guard suspends
//	settings.go    the live settings
//	search.go      the search field
//	events.go      events, as rows
//	live.go        the stream of facts and events that the script reads
//
// Changes:
//
//	change.go      a change: its effect, its form, the order, the outcome
//	changes.go     each change: the call that it makes, in words
package console
