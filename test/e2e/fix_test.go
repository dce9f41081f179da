package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const application = "internship-matcher"

// refusedManifests hold a Deployment that the API server takes, and one that it
// does not: its selector matches other pods than its own.
const refusedManifests = `apiVersion: apps/v1
kind: Deployment
metadata: {name: taken, namespace: internship-matcher}
spec:
  selector: {matchLabels: {app: taken}}
  template:
    metadata: {labels: {app: taken}}
    spec:
      hostPID: true
      containers: [{name: main, image: "registry.example.com/tool:1.0"}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: refused, namespace: internship-matcher}
spec:
  selector: {matchLabels: {app: refused}}
  template:
    metadata: {labels: {app: another}}
    spec:
      hostPID: true
      containers: [{name: main, image: "registry.example.com/tool:1.0"}]
`

var proven = regexp.MustCompile(`(?m)^the API server would take (\d+) changed objects$`)

// testFix lets the API server judge what fix would write.
func (c *cluster) testFix(t *testing.T) {
	if _, err := c.Deploy(t.Context(), "insecure"); err != nil {
		t.Fatal(err)
	}
	before := c.stored(t)
	out, errs, code := c.fix(t, filepath.Join(c.Root, "examples", application, "deploy", "insecure"))
	if code != 1 || strings.Contains(errs, "error: ") {
		t.Errorf("exit code %d, want 1: %s", code, errs)
	}
	taken := 0
	if m := proven.FindStringSubmatch(out); m != nil {
		taken, _ = strconv.Atoi(m[1])
	}
	// Each workload changes, and the namespace gets policies.
	if workloads := len(before); taken <= workloads || strings.Contains(out, "the API server refuses") {
		t.Errorf("the API server would take %d changed objects, want more than the %d workloads\n%s", taken, workloads, tail(out))
	}

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "two.yaml"), []byte(refusedManifests), 0o644); err != nil {
		t.Fatal(err)
	}
	out, errs, code = c.fix(t, dir, "--control", "CON-SEC-10")
	if code != 2 || !regexp.MustCompile(`two.yaml:12: the API server refuses the changed Deployment/internship-matcher/refused: .*selector`).MatchString(errs) {
		t.Errorf("exit code %d, want 2 with the name of what is refused: %s", code, errs)
	}
	if !strings.Contains(out, "the API server would take 1 changed objects") || strings.Count(out, "\n+") < 2 || strings.Contains(errs, "/taken") {
		t.Errorf("the other Deployment is not offered:\n%s", out)
	}
	if after := c.stored(t); !slices.Equal(before, after) {
		t.Errorf("a dry run changed what is stored:\n%s\nwas\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

// fix runs the program against the lab.
func (c *cluster) fix(t *testing.T, path string, more ...string) (stdout, stderr string, code int) {
	t.Helper()
	args := append([]string{"fix", "--dry-run", "server", "--kubeconfig", c.Kubeconfig, path}, more...)
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.Root, "bin", "kubeguardian"), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// stored lists the workloads and policies of the application, with the
// generation that every stored change of a spec raises.
func (c *cluster) stored(t *testing.T) []string {
	t.Helper()
	var out []string
	note := func(kind string, m metav1.ObjectMeta) {
		out = append(out, fmt.Sprintf("%s/%s %s generation %d", kind, m.Name, m.UID, m.Generation))
		for _, f := range m.ManagedFields {
			if f.Manager == "kubeguardian-fix" {
				t.Errorf("%s/%s was changed by a dry run", kind, m.Name)
			}
		}
	}
	ctx, apps := t.Context(), c.client.AppsV1()
	deployments, err := apps.Deployments(application).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range deployments.Items {
		note("Deployment", o.ObjectMeta)
	}
	sets, err := apps.StatefulSets(application).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range sets.Items {
		note("StatefulSet", o.ObjectMeta)
	}
	policies, err := c.client.NetworkingV1().NetworkPolicies(application).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range policies.Items {
		note("NetworkPolicy", o.ObjectMeta)
	}
	return out
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
