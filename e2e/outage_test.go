//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// container sends a docker command to a service's container.
//
//	container kill|stop|restart|pause|unpause|hup SERVICE
func (s *scenario) container(args []string) error {
	const text = "container kill|stop|restart|pause|unpause|hup SERVICE"
	if err := usage(args, text, 2); err != nil {
		return err
	}
	id, err := containerOf(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "stop", "restart", "pause":
		_, err = docker(args[0], id)
	case "unpause":
		_, err = docker("unpause", id)
	case "kill":
		_, err = docker("kill", "-s", "KILL", id)
	case "hup":
		_, err = docker("kill", "-s", "HUP", id)
	default:
		return usageError(text)
	}
	if err == nil && args[0] == "pause" {
		s.ts.Defer(func() { _, _ = docker("unpause", id) }) // a script that failed must not leave it paused
	}
	return err
}

// replace removes a service's container, whether it runs or not, and makes a new one.
//
//	replace SERVICE
func (s *scenario) replace(args []string) error {
	if err := usage(args, "replace SERVICE", 1); err != nil {
		return err
	}
	return compose("up", "-d", "--no-deps", "--force-recreate", "--no-build", args[0])
}

// wipe is a replace in which the service loses its volume.
//
//	wipe SERVICE
func (s *scenario) wipe(args []string) error {
	if err := usage(args, "wipe SERVICE", 1); err != nil {
		return err
	}
	if err := compose("rm", "-sf", args[0]); err != nil {
		return err
	}
	if _, err := docker("volume", "rm", os.Getenv("E2E_PROJECT")+"_"+args[0]); err != nil {
		return err
	}
	return compose("up", "-d", "--no-deps", "--no-build", args[0])
}

// disconnect takes a service's container off a network.
//
//	disconnect SERVICE NETWORK
func (s *scenario) disconnect(args []string) error {
	if err := usage(args, "disconnect SERVICE NETWORK", 2); err != nil {
		return err
	}
	id, err := containerOf(args[0])
	if err != nil {
		return err
	}
	_, err = docker("network", "disconnect", os.Getenv("E2E_PROJECT")+"_"+args[1], id)
	return err
}

// connect brings a service's container back to a network, at its address.
//
//	connect SERVICE NETWORK ADDRESS
func (s *scenario) connect(args []string) error {
	if err := usage(args, "connect SERVICE NETWORK ADDRESS", 3); err != nil {
		return err
	}
	id, err := containerOf(args[0])
	if err != nil {
		return err
	}
	_, err = docker("network", "connect", "--ip", args[2], "--alias", args[0], os.Getenv("E2E_PROJECT")+"_"+args[1], id)
	return err
}

// healthy waits until the engine says that a service's container is healthy.
//
//	healthy SERVICE [WITHIN]
func (s *scenario) healthy(args []string) error {
	if err := usage(args, "healthy SERVICE [WITHIN]", 1, 2); err != nil {
		return err
	}
	limit, err := within(args, 1, time.Minute)
	if err != nil {
		return err
	}
	return s.awaitHealthy(args[0], limit)
}

// unhealthy waits until the engine says that a service's container, which runs, is not
// healthy.
//
//	unhealthy SERVICE [WITHIN]
func (s *scenario) unhealthy(args []string) error {
	if err := usage(args, "unhealthy SERVICE [WITHIN]", 1, 2); err != nil {
		return err
	}
	limit, err := within(args, 1, 90*time.Second)
	if err != nil {
		return err
	}
	return eventually(limit, func() error {
		health, err := healthOf(args[0])
		if err == nil && health != "unhealthy" {
			err = fmt.Errorf("%s is %s", args[0], health)
		}
		return err
	})
}

// configure puts a file of the script in the place of sessiond's configuration, as an editor
// does: as a new file of that name.
//
//	configure FILE
func (s *scenario) configure(args []string) error {
	if err := usage(args, "configure FILE", 1); err != nil {
		return err
	}
	file := filepath.Join(os.Getenv("LAB_CONFIG"), "sessiond.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s.ts.Defer(func() { _ = os.WriteFile(file, before, 0o644) })
	if err := os.WriteFile(file+".new", []byte(s.ts.ReadFile(args[0])), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// logged waits until the log of a service has the text, in a line since the script began.
//
//	logged SERVICE TEXT [WITHIN]
func (s *scenario) logged(args []string) error {
	if err := usage(args, "logged SERVICE TEXT [WITHIN]", 2, 3); err != nil {
		return err
	}
	limit, err := within(args, 2, 10*time.Second)
	if err != nil {
		return err
	}
	return eventually(limit, func() error {
		id, err := containerOf(args[0])
		if err != nil {
			return err
		}
		log, err := docker("logs", "--since", s.began.Format(time.RFC3339Nano), id)
		if err == nil && !strings.Contains(log, args[1]) {
			err = fmt.Errorf("the log of %s does not have %q", args[0], args[1])
		}
		return err
	})
}
