package verdict

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubeguardian/kubeguardian/correlate"
)

// StartedBy says by which probe or hook of its pod a command is started; empty if by
// none, or if the pod is not known, which is nil.
func StartedBy(pod *unstructured.Unstructured, e correlate.Exec) string {
	if pod == nil {
		return ""
	}
	for _, list := range []string{"containers", "initContainers"} {
		containers, _, err := unstructured.NestedSlice(pod.Object, "spec", list)
		if err != nil {
			continue
		}
		for _, item := range containers {
			container, ok := item.(map[string]any)
			if !ok || e.Container != "" && container["name"] != e.Container {
				continue
			}
			for _, path := range [][]string{{"livenessProbe"}, {"readinessProbe"}, {"startupProbe"}, {"lifecycle", "postStart"}, {"lifecycle", "preStop"}} {
				words, _, err := unstructured.NestedStringSlice(container, append(path[:len(path):len(path)], "exec", "command")...)
				if err == nil && e.Runs(words) {
					return fmt.Sprintf("%s of container %v", path[len(path)-1], container["name"])
				}
			}
		}
	}
	return ""
}
