// Package rig runs a whole sessiond, the real program with a real Redis and a
// BNG, in a lab of network namespaces, and looks at it from outside. System
// tests and the demo stand on it.
package rig
