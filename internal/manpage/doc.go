// Package manpage writes the manual pages: as text for man(7), from what the programs and the
// reference configuration say of themselves.
//
//	page.go       a page, by sections, paragraphs and items
//	daemon.go     sessiond(8), from the daemon's --help
//	reference.go  sessiond.yaml(5), from the comments of the reference configuration
package manpage
