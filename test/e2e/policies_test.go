package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubeguardian/kubeguardian/audit"
)

// testKinds has a constraint deny, a mutating policy change what is admitted, and
// the audit find what a constraint says of it there alone.
func (d *deployment) testKinds(t *testing.T) {
	ranges := d.client.CoreV1().LimitRanges("default")
	object := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "claims"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypePersistentVolumeClaim, Min: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
	}}}}
	if _, err := ranges.Create(t.Context(), object, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "[Labelled] the label owner is missing") {
		t.Errorf("create = %v, want a denial by the constraint", err)
	}
	object.Labels = map[string]string{"owner": "ops"}
	created, err := ranges.Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if created.Labels["changed"] != "yes" || created.Labels["owner"] != "ops" {
		t.Errorf("labels = %v, want what the policy sets beside our own", created.Labels)
	}
	d.awaitAudit(t, func(v audit.Violation) bool {
		return v.Subject.Name == "claims" && v.Policy == "Labelled" && v.Binding == "team" && v.Enforcement == "deny"
	}, true)
	if err := ranges.Delete(t.Context(), "claims", metav1.DeleteOptions{}); err != nil { // neither label is asked for
		t.Fatal(err)
	}
	d.awaitAudit(t, func(v audit.Violation) bool { return v.Subject.Name == "claims" }, false)
}

// awaitAudit waits until the audit of a replica has a violation, or has not.
func (d *deployment) awaitAudit(t *testing.T, match func(audit.Violation) bool, want bool) {
	t.Helper()
	var body string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var page struct{ Items []audit.Violation }
		var err error
		if body, err = d.replicas[0].get("/api/v1/audit?policy=Labelled"); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(page.Items, match) == want {
			return
		}
	}
	t.Fatalf("the audit does not come to it: want %v, have %s", want, body)
}
