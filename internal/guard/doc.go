// Package guard bounds how many subscribers of a group one wave of removals may
// take before a person has confirmed that it is meant. It is pure: the time is an
// argument, and what is held is for its caller to keep.
package guard
