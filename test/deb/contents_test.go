package deb

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/testenv"
)

// mostExposure is the most that a service may be exposed, as systemd-analyze counts: 10 is a
// service without any limit.
const mostExposure = 2.0

// TestServicesAreTight: the services are limited as far as they can be.
func TestServicesAreTight(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Systemd)
	services, err := filepath.Glob("../../deploy/systemd/*.service")
	if err != nil || len(services) != 2 {
		t.Fatal(services, err)
	}
	for _, s := range services {
		out := output(t, "systemd-analyze", "security", "--no-pager", "--offline=true", s)
		_, after, _ := strings.Cut(out, "Overall exposure level for "+filepath.Base(s)+": ")
		level, _, _ := strings.Cut(after, " ")
		if exposure, err := strconv.ParseFloat(level, 64); err != nil || exposure > mostExposure {
			t.Errorf("%s: exposure %q, want %v at most:\n%s", s, level, mostExposure, out)
		}
	}
}

// TestServicesComeBack: no number of failures keeps systemd from another start, and a panic does not
// either: its exit code would be that of a wrong configuration, after which there is none.
func TestServicesComeBack(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sessiond.service", "sessiond-barrier.service"} {
		unit, err := os.ReadFile("../../deploy/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"StartLimitIntervalSec=0", "RestartPreventExitStatus=2", "Environment=GOTRACEBACK=crash"} {
			if !strings.Contains(string(unit), "\n"+line+"\n") {
				t.Errorf("%s lacks %s", name, line)
			}
		}
	}
}

// TestMaintainerScripts: the shell can read the package's scripts.
func TestMaintainerScripts(t *testing.T) {
	t.Parallel()
	for _, script := range []string{"config", "postinst", "prerm", "postrm"} {
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", "../../deploy/debian/"+script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

// TestContents: the package has what a Debian machine expects, and lintian finds no error.
func TestContents(t *testing.T) {
	deb := needed(t, newerVariable)[0]
	contents := output(t, "dpkg-deb", "--contents", deb)
	for file, mode := range map[string]string{
		"./usr/bin/sessiond": "-rwxr-xr-x", "./usr/bin/sessionctl": "-rwxr-xr-x",
		"./etc/sessiond/": "drwxr-x---", "./etc/sessiond/sessiond.yaml": "-rw-r-----",
		"./usr/share/man/man8/sessiond.8.gz": "-rw-r--r--", "./usr/share/man/man5/sessiond.yaml.5.gz": "-rw-r--r--", "./usr/share/man/man1/sessionctl.1.gz": "-rw-r--r--",
		"./usr/share/bash-completion/completions/sessionctl": "-rw-r--r--", "./usr/share/zsh/vendor-completions/_sessionctl": "-rw-r--r--",
		"./usr/share/fish/vendor_completions.d/sessionctl.fish": "-rw-r--r--",
		"./usr/lib/modules-load.d/sessiond.conf":                "-rw-r--r--", "./usr/lib/sysctl.d/60-sessiond.conf": "-rw-r--r--",
	} {
		found := false
		for line := range strings.Lines(contents) {
			if strings.HasSuffix(strings.TrimSpace(line), " "+file) {
				found = strings.HasPrefix(line, mode+" root/root")
			}
		}
		if !found {
			t.Errorf("no %s %s in the package", mode, file)
		}
	}
	if conffiles := output(t, "dpkg-deb", "--info", deb, "conffiles"); strings.TrimSpace(conffiles) != "/etc/sessiond/sessiond.yaml" {
		t.Errorf("conffiles: %q", conffiles)
	}
	if out, err := exec.CommandContext(t.Context(), "lintian", "--fail-on", "error", deb).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}
