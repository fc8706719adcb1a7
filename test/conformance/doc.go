// Package conformance has the checklist of what RFCs and the field ask of sessiond, finds the
// tests that hold its items, and tells from a run of them which are held.
package conformance
