// Package durability kills the real sessiond, and Redis with it, at random moments under
// RADIUS load, and compares the data in Redis with the replies to the BNGs.
package durability
