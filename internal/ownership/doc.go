// Package ownership says which daemon serves what: names in a network namespace
// that die with their process, and a lease in the database for each group.
package ownership
