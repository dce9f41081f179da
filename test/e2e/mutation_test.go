package e2e

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubeguardian/kubeguardian/admission"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/policy"
)

// A labeller sets one label, and remembers what it was asked for.
type labeller struct {
	label string

	mu    sync.Mutex
	asked []string // by name and operation
}

// Mutate implements [admission.Mutator].
func (l *labeller) Mutate(_ context.Context, req policy.Request) (*unstructured.Unstructured, []string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, req.Name+" "+string(req.Operation))
	out := req.Object.DeepCopy()
	labels := out.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[l.label] = "yes"
	out.SetLabels(labels)
	return out, nil, nil
}

func (l *labeller) times(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, asked := range l.asked {
		if asked == what {
			n++
		}
	}
	return n
}

// mutateWith serves a mutator in this process and returns its registration.
func (d *deployment) mutateWith(t *testing.T, m admission.Mutator) *admission.Registration {
	t.Helper()
	authority, err := admission.OpenAuthority(t.Context(), admission.FileKeys(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	none, err := policy.Load()
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	handler := admission.NewHandler(admission.Options{
		Policies: func() admission.Policies { return none }, Mutator: m, Namespace: "kubeguardian", Record: func(finding.Decision) {}, Log: quiet,
	})
	srv := &http.Server{Handler: handler, TLSConfig: authority.ServerTLS("127.0.0.1"), HTTP2: admission.HTTP2(), ErrorLog: log.New(io.Discard, "", 0)}
	go srv.ServeTLS(ln, "", "")
	t.Cleanup(func() { srv.Close() })
	r, err := admission.NewRegistration(admission.RegistrationOptions{
		Client: d.client, Rules: none.WebhookRules, URL: "https://" + ln.Addr().String(), CABundle: authority.CABundle,
		Timeout: 5 * time.Second, Namespace: "kubeguardian", Log: quiet,
		MutatingRules: func() []admissionregistrationv1.RuleWithOperations {
			return []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}, Scope: new(admissionregistrationv1.AllScopes),
				},
			}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testMutation runs when no replica is there to remove the registration. A
// second mutating webhook comes after ours and changes objects too.
func (d *deployment) testMutation(t *testing.T) {
	ours, others := &labeller{label: "example.com/ours"}, &labeller{label: "example.com/others"}
	r := d.mutateWith(t, ours)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := d.mutateWith(t, others).Mutating()
	other.Name, other.Webhooks[0].Name = "later", "later.example.com"
	hooks := d.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	if _, err := hooks.Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	maps := d.client.CoreV1().ConfigMaps("default")
	create := func(name string, opts metav1.CreateOptions) *corev1.ConfigMap {
		t.Helper()
		c, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, opts)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	rehearsal := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for deadline := time.Now().Add(2 * time.Minute); len(create("awaited", rehearsal).Labels) < 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a dry run is not changed")
		}
	}
	if c := create("changed", metav1.CreateOptions{}); c.Labels[ours.label] != "yes" || c.Labels[others.label] != "yes" {
		t.Errorf("labels = %v", c.Labels)
	}
	if n := ours.times("changed CREATE"); n != 2 {
		t.Errorf("ours is asked %d times, want again after the other changed the object", n)
	}
	if _, err := maps.Patch(t.Context(), "changed", types.MergePatchType, []byte(`{"metadata":{"labels":{"example.com/ours":null}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if c, err := maps.Get(t.Context(), "changed", metav1.GetOptions{}); err != nil || c.Labels[ours.label] != "yes" {
		t.Errorf("after an update: %v, %v", c.Labels, err)
	}
	exempt := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "exempt"}}
	if c, err := d.client.CoreV1().ConfigMaps("kube-system").Create(t.Context(), exempt, metav1.CreateOptions{}); err != nil || len(c.Labels) != 0 {
		t.Errorf("in kube-system: %v, %v", c.Labels, err)
	}
	if slices.Contains(ours.asked, "exempt CREATE") {
		t.Error("the API server asks about kube-system")
	}
	if err := r.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := hooks.Get(t.Context(), admission.ConfigurationName, metav1.GetOptions{}); err == nil {
		t.Error("the registration stays")
	}
}
