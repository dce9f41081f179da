package inventory

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// A cluster is a real API server without nodes, for one test.
type cluster struct{ url, etcd string }

// as returns the configuration of a user; the password is the name.
func (c cluster) as(user string) *rest.Config {
	return &rest.Config{Host: c.url, BearerToken: user, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 1000, Burst: 1000}
}

func (c cluster) admin(t testing.TB) kubernetes.Interface {
	client, err := kubernetes.NewForConfig(c.as("admin"))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// binaries finds etcd and kube-apiserver where KUBEBUILDER_ASSETS or the lab's
// cache has them.
func binaries(t testing.TB) string {
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
	const reason = "no kube-apiserver in KUBEBUILDER_ASSETS or the lab's cache"
	if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

func startCluster(t testing.TB) cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an API server")
	}
	bin, dir := binaries(t), t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"sa.key":     string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"tokens.csv": "admin,admin,1,system:masters\nnobody,nobody,2\nlimited,limited,3\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	start(t, dir, filepath.Join(bin, "etcd"), "--data-dir=etcd", "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls=unix://etcd.sock", "--advertise-client-urls=unix://etcd.sock",
		"--listen-peer-urls=unix://peer.sock", "--initial-advertise-peer-urls=unix://peer.sock", "--initial-cluster=default=unix://peer.sock")
	start(t, dir, filepath.Join(bin, "kube-apiserver"), "--etcd-servers=unix://etcd.sock", "--cert-dir=certs",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--authorization-mode=RBAC", "--token-auth-file=tokens.csv",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=sa.key",
		"--service-account-signing-key-file=sa.key", "--disable-admission-plugins=ServiceAccount")
	c := cluster{fmt.Sprintf("https://127.0.0.1:%d", port), filepath.Join(dir, "etcd.sock")}
	ready := func(ctx context.Context) error {
		return c.admin(t).Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}
	for until := time.Now().Add(2 * time.Minute); ready(t.Context()) != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			log, _ := os.ReadFile(filepath.Join(dir, "kube-apiserver.log"))
			t.Fatalf("no ready API server: %v\n%.3000s", ready(t.Context()), log)
		}
	}
	return c
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs a program until the test ends, or the test process does.
func start(t testing.TB, dir, program string, args ...string) {
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

func (c cluster) configMaps(t *testing.T, prefix string, n int) {
	t.Helper()
	maps := c.admin(t).CoreV1().ConfigMaps("default")
	for i := range n {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", prefix, i)}}
		if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// allow lets the user "limited" list some kinds.
func (c cluster) allow(t *testing.T, name, group string, resources ...string) {
	t.Helper()
	rbac := c.admin(t).RbacV1()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{group}, Resources: resources, Verbs: []string{"list", "watch"}}}}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "limited"}}}
	_, err1 := rbac.ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	_, err2 := rbac.ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
}

func TestCluster(t *testing.T) {
	c := startCluster(t)
	c.configMaps(t, "page", pageSize+50)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"password": "x"}}
	if _, err := c.admin(t).CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.allow(t, "maps", "", "configmaps")
	t.Run("administrator", func(t *testing.T) { testAdministrator(t, c) })
	t.Run("limited user", func(t *testing.T) {
		inv, err := FromCluster(t.Context(), c.as("limited"))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(inv.Kind("", "ConfigMap")); got < pageSize+50 {
			t.Errorf("%d config maps", got)
		}
		if got, want := inv.Gap("apps", "Deployment"), "not permitted to list deployments"; got != want {
			t.Errorf("Gap = %q, want %q", got, want)
		}
		if got := inv.Gap("", "ConfigMap"); got != "" {
			t.Errorf("Gap of config maps = %q", got)
		}
	})
	for user, want := range map[string]string{
		"nobody":   "read cluster " + c.url + ": these credentials may list nothing",
		"stranger": "reach cluster " + c.url + ": Unauthorized",
	} {
		t.Run(user, func(t *testing.T) {
			inv, err := FromCluster(t.Context(), c.as(user))
			if inv != nil || err == nil || err.Error() != want || hintOf(err) == "" {
				t.Errorf("FromCluster = %v, %v, want %s", inv, err, want)
			}
		})
	}
	t.Run("watch", func(t *testing.T) { testWatch(t, c) })
	t.Run("watch closes a gap", func(t *testing.T) { testWatchGap(t, c) })
}

func testAdministrator(t *testing.T, c cluster) {
	inv, err := FromCluster(t.Context(), c.as("admin"))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(inv.Kind("", "ConfigMap")); got < pageSize+50 {
		t.Errorf("%d config maps", got)
	}
	if len(inv.Kind("", "Secret")) != 0 || inv.Gap("", "Secret") != "secret contents are not read" {
		t.Errorf("secrets were read: gap %q", inv.Gap("", "Secret"))
	}
	if len(inv.Gaps) != 1 || inv.Origin != Cluster {
		t.Errorf("Origin %s, Gaps %v", inv.Origin, inv.Gaps)
	}
	role := inv.Get("rbac.authorization.k8s.io", "ClusterRole", "", "cluster-admin")
	if role == nil || role.GetAPIVersion() != "rbac.authorization.k8s.io/v1" || role.Source != "" {
		t.Errorf("ClusterRole cluster-admin = %v", role)
	}
	for _, o := range inv.Objects() {
		if o.GetManagedFields() != nil {
			t.Fatalf("%s has managed fields", o.Subject())
		}
	}
}

// watching runs follow in the background and returns its snapshots.
func watching(t *testing.T, config *rest.Config, retry time.Duration) <-chan *Inventory {
	ctx, cancel := context.WithCancel(t.Context())
	snapshots, done := make(chan *Inventory, 100), make(chan error, 1)
	go func() { done <- follow(ctx, config, func(inv *Inventory) { snapshots <- inv }, retry) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch ended with %v", err)
		}
	})
	return snapshots
}

// await reads snapshots until one is as wanted, and returns how many it took.
func await(t *testing.T, snapshots <-chan *Inventory, want func(*Inventory) bool) int {
	t.Helper()
	for n := 1; ; n++ {
		select {
		case inv := <-snapshots:
			if want(inv) {
				return n
			}
		case <-time.After(time.Minute):
			t.Fatal("no such snapshot within a minute")
		}
	}
}

func testWatch(t *testing.T, c cluster) {
	snapshots := watching(t, c.as("admin"), time.Hour)
	first := await(t, snapshots, func(inv *Inventory) bool { return len(inv.Kind("", "ConfigMap")) >= pageSize+50 })
	if first != 1 {
		t.Errorf("the first complete snapshot was number %d", first)
	}
	has := func(name string) func(*Inventory) bool {
		return func(inv *Inventory) bool { return inv.Get("", "ConfigMap", "default", name) != nil }
	}
	c.configMaps(t, "burst", 50)
	if n := await(t, snapshots, has("burst-49")); n > 25 {
		t.Errorf("%d snapshots for a burst of 50 changes", n)
	}
	if err := c.admin(t).CoreV1().ConfigMaps("default").Delete(t.Context(), "burst-49", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, snapshots, func(inv *Inventory) bool { return !has("burst-49")(inv) && has("burst-48")(inv) })
}

func testWatchGap(t *testing.T, c cluster) {
	snapshots := watching(t, c.as("limited"), 100*time.Millisecond)
	await(t, snapshots, func(inv *Inventory) bool { return inv.Gap("", "Namespace") != "" })
	c.allow(t, "spaces", "", "namespaces")
	await(t, snapshots, func(inv *Inventory) bool {
		return inv.Gap("", "Namespace") == "" && inv.Get("", "Namespace", "", "default") != nil
	})
}

func TestUnreachable(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<html>proxy</html>", http.StatusBadGateway)
	}))
	defer failing.Close()
	tests := []struct{ name, host, want string }{
		{"nothing listens", closed.URL, "connection refused"},
		{"no such host", "https://cluster.invalid", "no such host"},
		{"another server", failing.URL, "has prevented the request"},
		{"not a URL", "https://a b", "connect to cluster https://a b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config := &rest.Config{Host: test.host}
			inv, err := FromCluster(t.Context(), config)
			if inv != nil || err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("FromCluster = %v, %v", inv, err)
			}
			if err := Watch(t.Context(), config, func(*Inventory) {}); err == nil {
				t.Error("Watch gave no error")
			}
		})
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Watch(ctx, &rest.Config{Host: silent.URL}, func(*Inventory) {}); err != nil {
		t.Error(err)
	}
}

func TestHeartbeats(t *testing.T) {
	inventoried := func(r resource, o runtime.Object) any {
		u, err := new(client).normal(r, o)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	about := func(version, label string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "one", ResourceVersion: version, Labels: map[string]string{"zone": label}}
	}
	node := func(version, label, address, ready string) any {
		return inventoried(resource{kind: "Node"}, &corev1.Node{ObjectMeta: about(version, label), Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Address: address}},
			Conditions: []corev1.NodeCondition{{Message: ready}},
		}})
	}
	scaler := func(version string, replicas int32) any {
		return inventoried(resource{kind: "HorizontalPodAutoscaler"}, &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: about(version, "a"), Status: autoscalingv2.HorizontalPodAutoscalerStatus{DesiredReplicas: replicas}})
	}
	pod := func(version, address string) any {
		return inventoried(resource{kind: "Pod"}, &corev1.Pod{ObjectMeta: about(version, "a"), Status: corev1.PodStatus{PodIP: address}})
	}
	before := node("1", "a", "10.0.0.1", "at noon")
	tests := []struct {
		name          string
		before, after any
		want          bool
	}{
		{"condition of a node", before, node("2", "a", "10.0.0.1", "a minute later"), true},
		{"address of a node", before, node("2", "a", "10.0.0.2", "at noon"), false},
		{"label of a node", before, node("2", "b", "10.0.0.1", "at noon"), false},
		{"status of an autoscaler", scaler("1", 1), scaler("2", 2), true},
		{"status of a pod", pod("1", "10.0.0.1"), pod("2", "10.0.0.2"), false},
	}
	for _, tt := range tests {
		if got := heartbeat(tt.before, tt.after); got != tt.want {
			t.Errorf("%s: heartbeat = %v", tt.name, got)
		}
	}
}

// A cluster without an optional kind has none of it; one that does not say has a
// gap.
func TestOptionalKinds(t *testing.T) {
	r := resource{kind: "Schedule", optional: true}
	r.Resource = "schedules"
	if got := r.appendGap(nil, r.notServed()); got != nil {
		t.Errorf("gaps %v for an optional kind that is not served", got)
	}
	if got := r.appendGap(nil, "not permitted to list schedules"); len(got) != 1 {
		t.Errorf("gaps %v for an optional kind that may not be listed", got)
	}
	r.optional = false
	if got := r.appendGap(nil, r.notServed()); len(got) != 1 {
		t.Errorf("gaps %v for a kind that is not served", got)
	}
}
