package inventory_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

func dynamicClient(t testing.TB, config *rest.Config) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// create creates the objects of a file.
func create(t testing.TB, client dynamic.Interface, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			t.Fatal(err)
		}
		resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
		var to dynamic.ResourceInterface = client.Resource(resource)
		if o.GetNamespace() != "" {
			to = client.Resource(resource).Namespace(o.GetNamespace())
		}
		_, err := to.Create(t.Context(), o, metav1.CreateOptions{})
		for until := time.Now().Add(time.Minute); apierrors.IsNotFound(err) && time.Now().Before(until); { // its definition is new
			time.Sleep(100 * time.Millisecond)
			_, err = to.Create(t.Context(), o, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatalf("create %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// asJSON reads what an inventory reads, as JSON and untyped.
func asJSON(t testing.TB, client dynamic.Interface) (objects []*inventory.Object) {
	t.Helper()
	for resource, kind := range inventory.Resources() {
		list, err := client.Resource(resource).List(t.Context(), metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			o.SetManagedFields(nil)
			switch kind { // what no control reads
			case "Node":
				for _, field := range []string{"conditions", "images", "volumesAttached", "volumesInUse"} {
					unstructured.RemoveNestedField(o.Object, "status", field)
				}
			case "HorizontalPodAutoscaler":
				o.Object["status"] = map[string]any{"desiredReplicas": int64(0)}
			}
			objects = append(objects, &inventory.Object{Unstructured: o})
		}
	}
	return objects
}

// TestProtobufSaysWhatJSONSays reads one object of each kind both ways.
func TestProtobufSaysWhatJSONSays(t *testing.T) {
	config := inventory.StartCluster(t)
	client := dynamicClient(t, config)
	create(t, client, "../content/crds.yaml")
	create(t, client, "testdata/kinds.yaml")
	inv, err := inventory.FromCluster(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	other := asJSON(t, client)
	compareObjects(t, inv, other)
	t.Run("watched", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := inventory.Watch(ctx, config, func(watched *inventory.Inventory) {
			compareObjects(t, watched, other)
			cancel()
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("findings", func(t *testing.T) {
		untyped, err := inv.With(other)
		if err != nil {
			t.Fatal(err)
		}
		want, got := judge(t, untyped), judge(t, inv)
		if len(want) < 100 || len(got) != len(want) {
			t.Fatalf("%d findings, by JSON %d", len(got), len(want))
		}
		for i := range want {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("by protobuf %+v\nby JSON     %+v", got[i], want[i])
			}
		}
	})
}

func compareObjects(t *testing.T, inv *inventory.Inventory, other []*inventory.Object) {
	t.Helper()
	if got := len(inv.Objects()); got != len(other) {
		t.Errorf("%d objects, by JSON %d", got, len(other))
	}
	kinds := map[schema.GroupKind]bool{}
	for _, o := range other {
		kind := o.GroupVersionKind()
		kinds[kind.GroupKind()] = true
		req, err := policy.NewCreateRequest(o.Unstructured)
		if err != nil {
			t.Fatal(err)
		}
		live := inv.Get(kind.Group, kind.Kind, o.GetNamespace(), o.GetName())
		if live == nil {
			t.Errorf("%s is missing", o.Subject())
			continue
		}
		if live.Normal != scheme.Scheme.Recognizes(kind) {
			t.Errorf("%s: Normal is %v", o.Subject(), live.Normal)
		}
		if !reflect.DeepEqual(live.Object, req.Object.Object) {
			t.Errorf("%s:\nby protobuf %v\nby JSON     %v", o.Subject(), live.Object, req.Object.Object)
		}
		got := policy.NewNormalCreateRequest(live.Unstructured)
		if got.Object = req.Object; live.Normal && !reflect.DeepEqual(got, req) {
			t.Errorf("%s:\nrequest %+v\nby JSON %+v", o.Subject(), got, req)
		}
	}
	for resource, kind := range inventory.Resources() {
		gvk := resource.GroupVersion().WithKind(kind)
		if !kinds[gvk.GroupKind()] && (scheme.Scheme.Recognizes(gvk) || kind == "SecurityException") {
			t.Errorf("there is no %s to compare", kind)
		}
	}
}

func judge(t testing.TB, inv *inventory.Inventory) []finding.Finding {
	t.Helper()
	catalogue, err := control.LoadCatalogue(content.Controls())
	if err != nil {
		t.Fatal(err)
	}
	files, err := content.Read[policy.File](content.Policies())
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	findings, err := catalogue.Evaluate(t.Context(), control.Input{Inventory: inv, Policies: set, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// A counter counts the bytes of answers.
type counter struct {
	http.RoundTripper
	bytes *atomic.Int64
}

func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(answer.Body, c), answer.Body}
	}
	return answer, err
}

func (c counter) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return len(p), nil
}

// BenchmarkCluster reads 2,000 pods of a real API server up to the request that
// policies judge, and reports the bytes that it sends and our own CPU time.
func BenchmarkCluster(b *testing.B) {
	config := inventory.StartCluster(b)
	pods := dynamicClient(b, config).Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace("default")
	for i := range 2000 {
		if _, err := pods.Create(b.Context(), benchmarkPod(i), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	var sent atomic.Int64
	config.DisableCompression = true // as Go's client has it on a loopback address
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counter{next, &sent} })
	client := dynamicClient(b, config)
	measure := func(name string, read func(b *testing.B) int) {
		b.Run(name, func(b *testing.B) {
			sent.Store(0)
			before := cpu(b)
			for b.Loop() {
				if n := read(b); n < 2000 {
					b.Fatalf("%d objects", n)
				}
			}
			b.ReportMetric(float64(cpu(b)-before)/1e6/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(sent.Load())/1e3/float64(b.N), "kB/op")
		})
	}
	measure("json", func(b *testing.B) int {
		objects := asJSON(b, client)
		for _, o := range objects {
			if _, err := policy.NewCreateRequest(o.Unstructured); err != nil {
				b.Fatal(err)
			}
		}
		return len(objects)
	})
	measure("protobuf", func(b *testing.B) int {
		inv, err := inventory.FromCluster(b.Context(), config)
		if err != nil {
			b.Fatal(err)
		}
		for _, o := range inv.Objects() {
			if o.Normal {
				policy.NewNormalCreateRequest(o.Unstructured)
			}
		}
		return len(inv.Objects())
	})
}

func benchmarkPod(i int) *unstructured.Unstructured {
	name := "pod-" + string(rune('a'+i%26)) + "-" + strings.Repeat("x", i/26%10) + "-" + string(rune('a'+i/260))
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name, "labels": map[string]any{"app": name, "team": "a"}},
		"spec": map[string]any{"containers": []any{map[string]any{
			"name": "web", "image": "registry.example.com/team/web:1.2.3", "ports": []any{map[string]any{"containerPort": int64(8080)}},
			"env":             []any{map[string]any{"name": "LEVEL", "value": "info"}, map[string]any{"name": "URL", "value": "https://db.example.com:5432/"}},
			"resources":       map[string]any{"limits": map[string]any{"cpu": "500m", "memory": "128Mi"}},
			"securityContext": map[string]any{"runAsNonRoot": true, "allowPrivilegeEscalation": false},
		}}},
	}}
}

// cpu returns the CPU time of this process so far, in nanoseconds.
func cpu(b *testing.B) int64 {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return use.Utime.Nano() + use.Stime.Nano()
}
