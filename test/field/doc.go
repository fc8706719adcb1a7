// Package field tests situations from the field: what operators report of BNGs, RADIUS
// proxies and their clocks, and every kind of it. Each is a whole sessiond with a real
// Redis, told by real packets; NAT is in memory. What it means for live flows is shown
// in test/system.
package field
