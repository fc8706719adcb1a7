// Package fdstore keeps UDP sockets over restarts of the daemon, in the file descriptor store of
// its service manager (systemd, FileDescriptorStoreMax= in systemd.service(5)). What is sent to
// such a socket while no daemon runs waits in it.
package fdstore
