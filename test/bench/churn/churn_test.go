// Package churn runs many short pods beside an agent and looks at whether each
// was seen with its name, and what is left of them.
//
// Run it as root:  go test ./test/bench/churn -v -pods 500
package churn

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/agent"
	"github.com/kubeguardian/kubeguardian/agent/agenttest"
	"github.com/kubeguardian/kubeguardian/enforce"
	"github.com/kubeguardian/kubeguardian/sensor/container/containerdtest"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var pods = flag.Int("pods", 10, "`number` of pods")

const rules = `
- rule: Program
  desc: Any program in a container
  condition: evt.type in (execve, execveat) and container.id != host and proc.args contains kubeguardian-churn
  output: "program (%proc.cmdline)"
  priority: DEBUG
`

// TestChurn runs pods one after the other, each of which ends at once: the agent
// names each in its first alert, and takes none for drift.
func TestChurn(t *testing.T) {
	runtime := containerdtest.Start(t)
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	c := agent.DefaultConfig()
	c.Rules, c.CRI, c.Status = []string{file}, runtime.Socket, "127.0.0.1:0"
	c.ZeroDrift = []enforce.Drift{{Namespaces: []string{"churn"}, Mode: enforce.Kill}} // and no container of others
	a := agenttest.Start(t, c)
	began := time.Now()
	var own []string // how alerts name the containers; others run on the machine meanwhile
	for i := range *pods {
		pod := runtime.RunPodIn(t, "churn", fmt.Sprintf("pod-%d", i), func(config *cri.ContainerConfig) {
			config.Args = []string{"/nothing", fmt.Sprintf("kubeguardian-churn-%d.", i)}
		})
		own = append(own, "container="+pod.Container[:12]+" ")
		wait(t, runtime, pod) // one that is killed before its program begins shows nothing
		runtime.RemovePod(t, pod)
	}
	took := time.Since(began)
	state := health(t, "http://"+a.StatusAddr().String()+"/healthz")
	a.Stop(t)
	seen, named := map[string]bool{}, 0
	for _, one := range a.Alerts() {
		if one.Rule == enforce.DriftRule && slices.ContainsFunc(own, func(id string) bool { return strings.Contains(one.Output, id) }) {
			t.Errorf("false drift: %s", one.Output)
		}
		if _, mark, ok := strings.Cut(one.Output, "kubeguardian-churn-"); ok && !seen[mark] {
			seen[mark] = true
			if one.Subject.Name != "" {
				named++
			}
		}
	}
	for i := range *pods {
		if mark := fmt.Sprintf("%d.", i); !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(s string) bool { return strings.HasPrefix(s, mark) }) {
			t.Errorf("pod-%d was not seen", i)
		}
	}
	if named < len(seen) {
		t.Errorf("%d of %d pods are without their name in the alert about their first program", len(seen)-named, len(seen))
	}
	t.Logf("%d pods in %s: %d seen, %d of them with their name by the first program; %s", *pods, took.Round(time.Second), len(seen), named, state)
}

// wait waits until the container of a pod has ended by itself.
func wait(t *testing.T, runtime *containerdtest.Runtime, pod containerdtest.Pod) {
	t.Helper()
	for range 1000 {
		s, err := runtime.CRI.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: pod.Container})
		if err != nil {
			t.Fatal(err)
		}
		if s.GetStatus().GetState() == cri.ContainerState_CONTAINER_EXITED {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("pod %s does not end", pod.Name)
}

// health returns what the agent says of itself.
func health(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var h struct {
		Dropped   uint64
		Processes int
		Problems  []string
	}
	if err := json.NewDecoder(res.Body).Decode(&h); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("dropped %d, processes %d, problems %q", h.Dropped, h.Processes, h.Problems)
}
