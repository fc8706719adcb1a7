// Package lsn is the large-scale NAT engine: it decides, without any I/O,
// which port block of which outside address each subscriber holds.
package lsn
