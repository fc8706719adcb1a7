// Package durability kills the real sessiond, and Redis with it, at random
// moments under RADIUS load, and holds what Redis has against what the BNGs were
// told.
package durability
