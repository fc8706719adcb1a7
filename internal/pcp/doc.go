// Package pcp lets subscribers open ports of their own: a server of PCP (RFC 6887), and of NAT-PMP
// (RFC 6886) for old clients. The mappings themselves are kept by others, behind [Mappings].
package pcp
