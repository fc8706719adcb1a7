// Package access decides who may do what: it has the roles, the least role of each method,
// and the rules that give a caller its role.
//
// Reading order:
//
//	role.go    the roles
//	methods.go the one table from method to least role, and the refusal
//	actor.go   the caller of one call, as handlers and the audit see it
//	policy.go  from a connection, or a token, to an actor
//	name.go    names in certificates
//	token.go   bearer tokens
package access
