// Package udpbatch reads and writes many UDP datagrams in one system call, and
// lets the kernel cut and join datagrams of equal size.
package udpbatch
