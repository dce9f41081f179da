package charts

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/helm"
)

// A cluster is the lab's API server.
type cluster struct {
	client dynamic.Interface
	mapper meta.RESTMapper

	mu       sync.Mutex
	warnings []string
}

// HandleWarningHeaderWithContext is rest.WarningHandlerWithContext.
func (c *cluster) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = append(c.warnings, text)
}

// start brings up the lab, and takes it down when the test ends.
func start(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("brings up an API server")
	}
	dir := t.TempDir()
	lab, state := filepath.Join(dir, "lab"), filepath.Join(dir, "state")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", lab, ".")
	build.Dir = "../../lab"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the lab: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(lab, "down", "--dir", state).CombinedOutput(); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
	})
	if out, err := exec.CommandContext(t.Context(), lab, "up", "--dir", state).CombinedOutput(); err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{}
	config.QPS, config.WarningHandlerWithContext = -1, c
	c.client = dynamic.NewForConfigOrDie(config)
	c.mapper = mapper(t, config)
	return c
}

func mapper(t *testing.T, config *rest.Config) meta.RESTMapper {
	t.Helper()
	groups, err := restmapper.GetAPIGroupResources(discovery.NewDiscoveryClientForConfigOrDie(config))
	if err != nil {
		t.Fatal(err)
	}
	return restmapper.NewDiscoveryRESTMapper(groups)
}

// create creates an object, or only tries to.
func (c *cluster) create(t *testing.T, u *unstructured.Unstructured, dryRun ...string) error {
	t.Helper()
	kind := u.GroupVersionKind()
	m, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		t.Fatal(err)
	}
	var in dynamic.ResourceInterface = c.client.Resource(m.Resource)
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		in = c.client.Resource(m.Resource).Namespace(u.GetNamespace())
	}
	_, err = in.Create(t.Context(), u, metav1.CreateOptions{DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict})
	return err
}

func read(t *testing.T, doc []byte) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := utilyaml.Unmarshal(doc, &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// enforce makes the API server deny all that our own policies complain about.
func (c *cluster) enforce(t *testing.T) {
	t.Helper()
	err := fs.WalkDir(content.Policies(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(content.Policies(), name)
		if err != nil {
			return err
		}
		for _, doc := range documents(t, []helm.Rendered{{File: name, Text: string(data)}}) {
			u := read(t, doc)
			if u.GetKind() == "ValidatingAdmissionPolicyBinding" {
				if err := unstructured.SetNestedStringSlice(u.Object, []string{"Deny"}, "spec", "validationActions"); err != nil {
					return err
				}
			}
			if err := c.create(t, u); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pod returns a pod of a template, as its controller would make it.
func pod(t *testing.T, template corev1.PodTemplateSpec) *unstructured.Unstructured {
	t.Helper()
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy(),
	}
	p.Name, p.Namespace = template.Labels["app"], namespace
	for _, m := range p.Spec.Containers[0].VolumeMounts {
		if m.Name == "data" { // of the StatefulSet's claim
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: m.Name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-postgres-0"}}})
		}
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(p)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: object}
}

// TestAPIServerTakesTheDatabase gives the chart to a real API server that
// enforces Pod Security at restricted and denies what our policies would report.
func TestAPIServerTakesTheDatabase(t *testing.T) {
	c := start(t)
	data, err := os.ReadFile(database + "-namespace.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.create(t, read(t, data)); err != nil {
		t.Fatal(err)
	}
	c.enforce(t)
	all := objects(t, nil)
	var rest []*unstructured.Unstructured
	for _, doc := range documents(t, must(render(nil))) {
		u := read(t, doc)
		if u.GetKind() != "ServiceAccount" { // without which there are no pods
			rest = append(rest, u)
		} else if err := c.create(t, u); err != nil {
			t.Error(err)
		}
	}
	writable := nodes(t, all)
	writable.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem = new(false)
	c.denied(t, pod(t, writable))
	all = objects(t, nil)
	for _, u := range rest {
		if err := c.create(t, u, metav1.DryRunAll); err != nil {
			t.Errorf("%s/%s: %v", u.GetKind(), u.GetName(), err)
		}
	}
	for _, template := range []corev1.PodTemplateSpec{nodes(t, all), pool(t, all)} {
		if err := c.create(t, pod(t, template), metav1.DryRunAll); err != nil {
			t.Errorf("pod of %s: %v", template.Labels["app"], err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.warnings {
		t.Errorf("warning: %s", w)
	}
}

func must(files []helm.Rendered, err error) []helm.Rendered {
	if err != nil {
		panic(err) // it was rendered before
	}
	return files
}

// denied waits until an object is denied that breaks the last of the policies:
// they take effect some time after they are made.
func (c *cluster) denied(t *testing.T, u *unstructured.Unstructured) {
	t.Helper()
	var err error
	for limit := time.Now().Add(2 * time.Minute); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		if err = c.create(t, u, metav1.DryRunAll); apierrors.IsInvalid(err) || apierrors.IsForbidden(err) && strings.Contains(err.Error(), "writable-root-filesystem") {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.warnings = nil
			return
		}
	}
	t.Fatalf("the policies deny nothing: %v", err)
}
