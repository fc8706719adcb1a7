// Package deb tests the Debian package, as one installs it on a bare Debian 12: a container with
// its own systemd, whose network namespace is the CGN of a lab. `make deb-test` runs it.
package deb
