package ownership

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// administrator reports whether a process of the user may program the kernel.
func administrator(uid uint32) bool {
	processes, err := os.ReadDir("/proc")
	return err != nil || slices.ContainsFunc(processes, func(p os.DirEntry) bool { return administers(p.Name(), uid) })
}

// administers reports whether a process is of the user and may program the kernel.
func administers(process string, uid uint32) bool {
	status, err := os.ReadFile(filepath.Join("/proc", process, "status"))
	return err == nil && showsAdministrator(string(status), uid) && !apart(process)
}

// showsAdministrator reports whether the status of a process (proc_pid_status(5)) shows
// CAP_NET_ADMIN, and uid as its only user: a process that changed its user, as by sudo, has
// other rights than uid.
func showsAdministrator(status string, uid uint32) bool {
	var users, capable bool
	for line := range strings.Lines(status) {
		field, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch field {
		case "Uid": // real, effective, saved, of the file system
			users = !slices.ContainsFunc(strings.Fields(value), func(u string) bool { return u != fmt.Sprint(uid) })
		case "CapEff":
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			capable = err == nil && bits>>unix.CAP_NET_ADMIN&1 != 0
		}
	}
	return users && capable
}

// apart reports whether a process is in a user namespace below ours (user_namespaces(7)). Any
// user can make one and has all capabilities there, but none outside. Whether a process is
// below ours is known only in the first user namespace, which alone maps every user.
func apart(process string) bool {
	own, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || !slices.Equal(strings.Fields(string(own)), []string{"0", "0", "4294967295"}) {
		return false
	}
	its, err := os.ReadFile(filepath.Join("/proc", process, "uid_map"))
	return err == nil && !bytes.Equal(its, own)
}
