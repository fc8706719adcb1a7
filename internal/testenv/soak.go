package testenv

import "os"

// Soak reports whether tests of random histories are to run at their full length, as in make
// soak: the variable SOAK is set.
func Soak() bool { return os.Getenv("SOAK") != "" }
