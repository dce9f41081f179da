package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

const clusterTemplate = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: purpose}
spec:
  crd: {spec: {names: {kind: Purpose}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package purpose
      violation[{"msg": "say what it is for"}] { not input.review.object.metadata.annotations.purpose }
`

const clusterConstraint = `apiVersion: constraints.gatekeeper.sh/v1beta1
kind: Purpose
metadata: {name: all}
spec: {match: {kinds: [{apiGroups: [""], kinds: [PodTemplate]}]}}
`

// testClusterPolicies has both replicas judge by an object of the cluster, and one
// of them killed meanwhile.
func (d *deployment) testClusterPolicies(t *testing.T) {
	apply := func(text string) {
		t.Helper()
		d.run(t, []byte(text), d.kubectl(t), "--kubeconfig", d.path("lab/admin.kubeconfig"), "apply", "-f", "-")
	}
	apply(clusterTemplate)
	client := dynamic.NewForConfigOrDie(d.admin).Resource(schema.GroupVersionResource{Group: "constraints.gatekeeper.sh", Version: "v1beta1", Resource: "purpose"})
	eventually(t, "constraints are defined", func() error {
		_, err := client.List(t.Context(), metav1.ListOptions{})
		return err
	})
	apply(clusterConstraint)
	try := func(denied bool) func() error {
		return func() error {
			_, err := d.client.CoreV1().PodTemplates("default").Create(t.Context(), &corev1.PodTemplate{
				ObjectMeta: metav1.ObjectMeta{Name: "tried"}, Template: corev1.PodTemplateSpec{Spec: harmless("").Spec},
			}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if byUs := apierrors.IsForbidden(err) && strings.Contains(err.Error(), "[Purpose] say what it is for"); byUs != denied || !denied && err != nil {
				return fmt.Errorf("create = %v", err)
			}
			return nil
		}
	}
	// Every connection may go to the other replica: many times in a row.
	always := func() error {
		for range 20 {
			d.service.hangUp()
			if err := try(true)(); err != nil {
				return err
			}
		}
		return nil
	}
	eventually(t, "both replicas deny", always)
	replicas := func() error {
		o, err := client.Get(t.Context(), "all", metav1.GetOptions{})
		if err != nil {
			return err
		}
		list, _, _ := unstructured.NestedSlice(o.Object, "status", "byPod")
		var ids []string
		for _, e := range list {
			entry := e.(map[string]any)
			ids = append(ids, fmt.Sprint(entry["id"], entry["enforced"], entry["observedGeneration"]))
		}
		slices.Sort(ids)
		if len(slices.Compact(ids)) != 2 || !strings.HasSuffix(ids[0], "true 1") || !strings.HasSuffix(ids[1], "true 1") {
			return fmt.Errorf("byPod = %v", ids)
		}
		return nil
	}
	eventually(t, "both replicas say so", replicas)
	d.replicas[0].kill(t)
	d.service.await(t, 1)
	if err := try(true)(); err != nil {
		t.Error(err)
	}
	d.replicas[0].start(t)
	d.service.await(t, 2)
	eventually(t, "both deny after a restart", always)
	if err := replicas(); err != nil {
		t.Error(err)
	}
	d.run(t, nil, d.kubectl(t), "--kubeconfig", d.path("lab/admin.kubeconfig"), "delete", "constrainttemplate", "purpose")
	eventually(t, "nothing is denied any more", try(false))
	eventually(t, "the definition is gone", func() error {
		if _, err := client.List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("list = %v", err)
		}
		return nil
	})
}

// kill ends the process as nothing but a crash would.
func (r *replica) kill(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.exited
	r.cmd = nil
}

// eventually waits until try succeeds.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := try()
		if err == nil {
			t.Logf("%s after %s", what, time.Since(start).Round(time.Millisecond))
			return
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("not within 30s: %s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
