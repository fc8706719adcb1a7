package nftnat

import (
	"strings"
	"testing"
)

// TestNamespaceMadeAnew deletes the namespace and makes another one of its name: Run
// returns an error with that reason, because only a new start can serve it.
func TestNamespaceMadeAnew(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	ended := make(chan error, 1)
	go func() { ended <- k.Run(testContext(t)) }()
	select {
	case <-k.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	for _, verb := range []string{"del", "add"} {
		if out, err := lab.Internet.Output(testContext(t), "ip", "netns", verb, lab.CGN.Name()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "made anew") || !strings.Contains(err.Error(), lab.CGN.Name()) {
			t.Errorf("Run ended with %v", err)
		}
	case <-testContext(t).Done():
		t.Error("Run goes on")
	}
}
