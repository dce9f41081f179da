// Package clusterpolicies tests the server with policies that are objects of a
// cluster, on a real API server.
package clusterpolicies

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// binaries finds etcd and kube-apiserver where KUBEBUILDER_ASSETS or the lab's
// cache has them.
func binaries(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(cache, "kubeguardian", "lab", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append([]string{os.Getenv("KUBEBUILDER_ASSETS")}, dirs...) {
		if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); dir != "" && err == nil {
			return dir
		}
	}
	if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
		t.Fatal("needs kube-apiserver and etcd: run 'make lab' or set KUBEBUILDER_ASSETS")
	}
	t.Skip("needs kube-apiserver and etcd: run 'make lab' or set KUBEBUILDER_ASSETS")
	return ""
}

// A world is an API server without nodes and controllers, as an administrator sees
// it.
type world struct {
	*testing.T
	admin   *rest.Config
	client  kubernetes.Interface
	objects dynamic.Interface
}

// in returns the world for a part of the test.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.T = t
	return &part
}

// newWorld starts an API server that ends with the test.
func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an API server")
	}
	bin, dir := binaries(t), t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sa.key":     string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"tokens.csv": "admin,admin,1,system:masters\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	launch(t, dir, filepath.Join(bin, "etcd"), "--data-dir=etcd", "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls=unix://etcd.sock", "--advertise-client-urls=unix://etcd.sock",
		"--listen-peer-urls=unix://peer.sock", "--initial-advertise-peer-urls=unix://peer.sock", "--initial-cluster=default=unix://peer.sock")
	launch(t, dir, filepath.Join(bin, "kube-apiserver"), "--etcd-servers=unix://etcd.sock", "--cert-dir=certs",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--authorization-mode=RBAC", "--token-auth-file=tokens.csv",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=sa.key",
		"--service-account-signing-key-file=sa.key", "--disable-admission-plugins=ServiceAccount")
	w := &world{T: t, admin: &rest.Config{
		Host: fmt.Sprintf("https://127.0.0.1:%d", port), BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 1000, Burst: 1000,
	}}
	w.client, w.objects = kubernetes.NewForConfigOrDie(w.admin), dynamic.NewForConfigOrDie(w.admin)
	w.eventually("the API server is ready", func() error {
		return w.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error()
	})
	return w
}

// launch runs a program until the test ends, or the test process does.
func launch(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, filepath.Base(program)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// eventually waits until try succeeds, for three minutes at most.
func (w *world) eventually(what string, try func() error) {
	w.Helper()
	const within = 3 * time.Minute
	start := time.Now()
	for {
		err := try()
		if err == nil {
			w.Logf("%s after %s", what, time.Since(start).Round(time.Millisecond))
			return
		}
		if time.Since(start) > within || w.Context().Err() != nil {
			w.Fatalf("not within %s: %s: %v", within, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// apply creates or replaces the objects of a file, whose definitions may be new.
func (w *world) apply(text string) {
	w.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil || o.Object == nil {
			w.Fatalf("read %q: %v", doc, err)
		}
		w.eventually(fmt.Sprintf("apply %s %s", o.GetKind(), o.GetName()), func() error {
			_, err := w.at(o).Apply(w.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", Force: true})
			return err
		})
	}
}

// at returns the client of an object.
func (w *world) at(o *unstructured.Unstructured) dynamic.ResourceInterface {
	resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	switch resource.Group {
	case "constraints.gatekeeper.sh", "mutations.gatekeeper.sh", "expansion.gatekeeper.sh": // whose plurals are none
		resource.Resource = strings.ToLower(o.GetKind())
	}
	if o.GetNamespace() != "" {
		return w.objects.Resource(resource).Namespace(o.GetNamespace())
	}
	return w.objects.Resource(resource)
}

// get reads an object anew.
func (w *world) get(apiVersion, kind, name string) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	return w.at(o).Get(w.Context(), name, metav1.GetOptions{})
}

// remove deletes an object.
func (w *world) remove(apiVersion, kind, name string) {
	w.Helper()
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	if err := w.at(o).Delete(w.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.Fatalf("delete %s %s: %v", kind, name, err)
	}
}

func mustResource(apiVersion, plural string) schema.GroupVersionResource {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		panic(err) // it is written here
	}
	return gv.WithResource(plural)
}
