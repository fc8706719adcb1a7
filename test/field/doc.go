// Package field tests situations that operators report of BNGs, RADIUS proxies and their
// clocks, and their variants. Each runs on a whole sessiond with a real Redis and real
// packets; NAT is in memory. Package test/system shows the effects on live flows.
package field
