// Package subscriber is the domain: the record of one online subscriber, the
// accounting events that change it, and the pure rules that decide the effect
// of an event.
package subscriber
