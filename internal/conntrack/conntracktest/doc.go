// Package conntracktest fills connection tracking tables for tests, with an
// encoder and a reader that share nothing with the package under test.
package conntracktest
