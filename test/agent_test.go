package test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestAgentStaysSmall holds the privileged program to few modules that we chose,
// and of Kubernetes to the types of the container runtime interface.
func TestAgentStaysSmall(t *testing.T) {
	const most = 10
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Indirect}}{{end}}", "../cmd/kubeguardian-agent").Output()
	if err != nil {
		t.Fatal(err)
	}
	var direct []string
	for line := range strings.Lines(string(out)) {
		path, indirect, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(path, "k8s.io/") && path != "k8s.io/cri-api" || strings.HasPrefix(path, "sigs.k8s.io/") {
			t.Errorf("the privileged agent must not link %s", path)
		}
		if indirect == "false" && path != module && !slices.Contains(direct, path) {
			direct = append(direct, path)
		}
	}
	if len(direct) == 0 || len(direct) > most {
		t.Errorf("%d modules, at most %d: %v", len(direct), most, direct)
	}
	t.Logf("%d modules: %v", len(direct), direct)
}
