// Package guard bounds the number of a group's subscribers that one wave of
// removals may take before a person has confirmed it. It is pure: the time is
// an argument, and the caller keeps the suspended removals.
package guard
