// Package portuse counts subscribers by the number of ports that they use, and derives from
// that which block size suits them.
//
// Reading order: counts.go, advice.go.
package portuse
