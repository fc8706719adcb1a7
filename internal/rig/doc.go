// Package rig runs a whole sessiond, the real program with a real Redis and a
// BNG, in a lab of network namespaces. It observes sessiond from outside.
// System tests and the demo use it.
package rig
