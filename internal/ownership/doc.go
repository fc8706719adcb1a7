// Package ownership decides which daemon serves a group or table: with names in
// a network namespace that end with their process, and a lease in the database
// for each group.
package ownership
