// Package conntracktest fills connection tracking tables for tests. Its encoder and reader
// share nothing with the package under test.
package conntracktest
