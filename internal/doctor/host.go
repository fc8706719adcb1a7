package doctor

import "fmt"

var hostChecks = []Check{
	{"time", "whether the clock is synchronized", checkTime},
	{"files", "modes of the configuration, and of files with secrets", checkFiles},
}

func checkTime(f *Facts) []Finding {
	if f.Clock == nil || f.Clock.Synchronized {
		return nil
	}
	return []Finding{{
		Severity: Should, Found: "no time server keeps this machine's clock right",
		Why:     "records and receipts say who had a public port at which time: they are worth what the clock is",
		Command: "timedatectl set-ntp true", Note: "or install chrony",
	}}
}

// Permission bits of files.
const (
	othersRead  = 0o004
	othersWrite = 0o022 // the group's too
)

func checkFiles(f *Facts) (found []Finding) {
	for _, file := range f.Files {
		mode := file.Mode.Perm()
		if file.Secret && mode&othersRead != 0 {
			found = append(found, Finding{
				Severity: Must, Found: fmt.Sprintf("%s has secrets, and mode %04o", file.Path, mode),
				Why:     "every user of this machine can read them: who knows a shared secret can end subscribers",
				Command: "chmod o-rwx " + Quote(file.Path), Note: "then change the secrets, if others may have read them",
			})
		}
		if mode&othersWrite != 0 {
			found = append(found, Finding{
				Severity: Must, Found: fmt.Sprintf("%s has mode %04o", file.Path, mode),
				Why:     "others than its owner can change what sessiond does",
				Command: "chmod go-w " + Quote(file.Path),
			})
		}
	}
	return found
}
