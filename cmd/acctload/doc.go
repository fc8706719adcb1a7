// Command acctload puts a RADIUS accounting server under load and reports rate,
// latencies and losses. It works with any server that speaks RFC 2866.
package main
