package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/notify"
	"github.com/kubeguardian/kubeguardian/notify/kubernetes"
	"github.com/kubeguardian/kubeguardian/notify/notifytest"
	"github.com/kubeguardian/kubeguardian/notify/openreports"
)

// TestObjectsOfTheCluster: a real API server takes the Events and reports that
// are written, with the rights that the READMEs give and not without them, and
// has those that are sent again once.
func TestObjectsOfTheCluster(t *testing.T) {
	d := newLab(t)
	if _, err := d.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	apply := func(yaml []byte) {
		t.Helper()
		d.run(t, yaml, d.kubectl(t), "--kubeconfig", d.path("lab/admin.kubeconfig"), "apply", "-f", "-")
	}
	definitions, err := os.ReadFile("testdata/reports.yaml")
	if err != nil {
		t.Fatal(err)
	}
	apply(definitions)
	d.run(t, nil, d.kubectl(t), "--kubeconfig", d.path("lab/admin.kubeconfig"), "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")

	server, err := clientcmd.BuildConfigFromFlags("", d.path("server.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	api, err := rest.HTTPClientFor(server)
	if err != nil {
		t.Fatal(err)
	}
	batch := notifytest.Notifications(8)
	batch[5].Alert.Subject = finding.Subject{APIVersion: "v1", Kind: "Node", Name: "node-1"}
	for name, build := range map[string]func(*http.Client) (notify.Destination, error){
		"kubernetes": func(h *http.Client) (notify.Destination, error) {
			return kubernetes.New(kubernetes.Config{}, notify.Options{Name: "events", Cluster: "prod"}, h, server.Host)
		},
		"openreports": func(h *http.Client) (notify.Destination, error) {
			return openreports.New(openreports.Config{Kinds: []string{"reports", "policyreports"}}, notify.Options{Name: "reports", Cluster: "prod"}, h, server.Host)
		},
	} {
		to, err := build(api)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := to.Send(t.Context(), batch); !notify.IsPermanent(err) || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s, without rights: %v", name, err)
		}
		readme, err := os.ReadFile("../../notify/" + name + "/README.md")
		if err != nil {
			t.Fatal(err)
		}
		_, rights, _ := strings.Cut(string(readme), "```yaml\napiVersion: rbac")
		rights, _, _ = strings.Cut(rights, "```")
		apply([]byte("apiVersion: rbac" + rights))
		for range 2 {
			if err := to.Send(t.Context(), batch); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	events := 0
	for _, namespace := range []string{"shop", "default"} {
		list, err := d.client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.ReportingController == "kubeguardian.dev/kubeguardian" {
				events++
			}
		}
	}
	if events != len(batch) {
		t.Errorf("%d Events, want %d", events, len(batch))
	}
	client := dynamic.NewForConfigOrDie(d.admin)
	for _, resource := range []schema.GroupVersionResource{
		{Group: "openreports.io", Version: "v1alpha1", Resource: "reports"}, {Group: "wgpolicyk8s.io", Version: "v1alpha2", Resource: "policyreports"},
	} {
		o, err := client.Resource(resource).Namespace("shop").Get(t.Context(), "kubeguardian-alerts", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if results, _ := o.Object["results"].([]any); len(results) != len(batch)-1 {
			t.Errorf("%s: %d results, want %d", resource.Resource, len(results), len(batch)-1)
		}
	}
}
