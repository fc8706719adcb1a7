package testenv

import "os"

// Soak reports whether tests of random histories are to run at their full length, as in make
// soak: the variable SOAK is set.
func Soak() bool { return os.Getenv("SOAK") != "" }

// Walks returns how many random histories a test plays: so many in make soak, and a quarter of
// them, with the first seeds, otherwise.
func Walks(soak int) int {
	if Soak() {
		return soak
	}
	return (soak + 3) / 4
}
