package install

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	namespace = "kubeguardian"
	agents    = "kubeguardian-agent"
	web       = "https://10.96.7.7:8443"
)

// listAll asks for all of a kind.
var listAll = metav1.ListOptions{}

// values are what this cluster asks for besides the defaults: the API server is
// at a port of this machine, and its nodes cannot give the right to exceed
// limits, which the kernel here does not ask for.
func values(apiServer int) map[string]any {
	type object = map[string]any
	return object{
		"image":    object{"tag": "lab"},
		"server":   object{"clusterIP": "10.96.7.7", "persistence": object{"size": "1Gi"}, "resources": object{"requests": object{"cpu": "50m"}}, "config": object{"scan": object{"interval": "30s"}, "detection": object{"auditFiles": []any{"/var/lib/kubeguardian/audit.jsonl"}}}},
		"policies": object{"fromCluster": true},
		"agent":    object{"capabilities": []any{"BPF", "DAC_READ_SEARCH", "PERFMON", "SYS_PTRACE"}},
		"networkPolicy": object{
			"apiServer": object{"cidrs": []any{"10.99.0.1/32", "10.96.0.1/32"}, "ports": []any{443, apiServer}},
			"clients":   []any{object{"ipBlock": object{"cidr": "10.99.0.0/30"}}},
		},
	}
}

// images gives the node KubeGuardian's images and one to attack.
func (l lab) images() {
	l.t.Helper()
	dir := l.t.TempDir()
	l.run("go", "run", "-C", root+"/examples/internship-matcher", "./cmd/images", "-project", "kubeguardian", "-o", dir, "-tag", "lab")
	intruder := filepath.Join(dir, "intruder")
	l.run("go", "build", "-o", intruder, "./testdata/intruder")
	l.run("go", "run", "-C", root+"/lab/node", "./image", intruder+".tar", "localhost/intruder:lab="+intruder)
	for _, file := range []string{filepath.Join(dir, "images.tar"), intruder + ".tar"} {
		l.node("ctr", "images", "import", file)
	}
}

// volume is where the server's data are, on the disk of node and machine.
func (l lab) volume() string { return filepath.Join(filepath.Dir(l.dir), "volume") }

// prepare makes what a cluster has: a namespace that admits restricted pods
// only, and a volume, in which the audit log is to be read.
func (l lab) prepare() {
	l.t.Helper()
	path := l.volume()
	l.node("install", "-d", "-o", "65532", "-g", "65532", "-m", "0770", path)
	log := filepath.Join(l.dir, "audit.jsonl")
	if err := errors.Join(os.Chmod(log, 0o644), os.Link(log, filepath.Join(path, "audit.jsonl"))); err != nil {
		l.t.Fatal(err)
	}
	restricted := map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	if _, err := l.client.CoreV1().Namespaces().Create(l.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: restricted}}, metav1.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
	volume := fmt.Sprintf(`{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "kubeguardian"}, "spec": {
		"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"], "persistentVolumeReclaimPolicy": "Retain",
		"claimRef": {"namespace": %q, "name": "kubeguardian"}, "hostPath": {"path": %q, "type": "Directory"}}}`, namespace, path)
	var pv corev1.PersistentVolume
	if err := json.Unmarshal([]byte(volume), &pv); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.client.CoreV1().PersistentVolumes().Create(l.t.Context(), &pv, metav1.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

// port is that of the API server.
func (l lab) port() int {
	l.t.Helper()
	var port int
	if _, err := fmt.Sscanf(l.rest.Host[strings.LastIndex(l.rest.Host, ":")+1:], "%d", &port); err != nil {
		l.t.Fatal(err)
	}
	return port
}

// TestRelease installs the chart in a real cluster, attacks a pod, and removes
// all again.
func TestRelease(t *testing.T) {
	l := up(t)
	l.images()
	l.prepare()
	l.victims("default/asked", "default/past", "shop/cart", "shop/caller", "rehearsal/cart", "sealed/cart", "watched/cart", "kube-system/cart")
	before := l.listed()
	r := Release{Kubeconfig: l.kubeconfig(), Namespace: namespace, Name: "guard", Timeout: 5 * time.Minute}
	began := time.Now()
	if err := r.Install(t.Context(), root+"/charts/kubeguardian", values(l.port())); err != nil {
		l.explain()
		t.Fatal(err)
	}
	t.Logf("installed in %.0f s", time.Since(began).Seconds())
	l.wantAdmission()
	l.wantAgent()
	l.wantAlert()
	l.wantCommands()
	changed := values(l.port())
	changed["monitoring"] = map[string]any{"dashboards": true}
	agent := changed["agent"].(map[string]any)
	agent["enforcement"], agent["config"] = true, enforcing()
	if err := r.Upgrade(t.Context(), root+"/charts/kubeguardian", changed); err != nil {
		l.explain()
		t.Fatal(err)
	}
	l.wantAdmission()
	l.wantEnforcement()
	l.wantRestarts()
	l.wantRights("create", "get", "list", "patch", "watch")
	if err := r.Uninstall(); err != nil {
		l.explain()
		t.Fatal(err)
	}
	l.wantNothing(before)
}

// eventually waits until check is satisfied.
func (l lab) eventually(what string, check func(context.Context) error) {
	l.t.Helper()
	var err error
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if err = check(l.t.Context()); err == nil {
			return
		}
	}
	l.explain()
	l.t.Fatalf("%s: %v", what, err)
}

// explain logs what the pods say.
func (l lab) explain() {
	for _, in := range []string{namespace, agents} {
		pods, err := l.client.CoreV1().Pods(in).List(context.Background(), listAll)
		if err != nil {
			l.t.Log(err)
			continue
		}
		for _, p := range pods.Items {
			lines := int64(15)
			log, err := l.client.CoreV1().Pods(in).GetLogs(p.Name, &corev1.PodLogOptions{TailLines: &lines}).DoRaw(context.Background())
			status, _ := json.Marshal(p.Status.ContainerStatuses)
			l.t.Logf("%s/%s: %s %s\n%s\n%s (%v)", in, p.Name, p.Status.Phase, p.Status.Message, status, log, err)
		}
	}
}

// wantAdmission wants the API server to ask the server: a pod that violates the
// built-in policies is answered with warnings or a denial of ours.
func (l lab) wantAdmission() {
	l.t.Helper()
	l.eventually("admission", func(ctx context.Context) error {
		found, err := l.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, "kubeguardian", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := found.Webhooks[0].ClientConfig.Service; s == nil || s.Namespace != namespace {
			return fmt.Errorf("registered with %+v", found.Webhooks[0].ClientConfig)
		}
		metrics, err := l.get("/metrics", "")
		if err != nil {
			return err
		}
		for _, want := range []string{"kubeguardian_admission_webhook_registered 1", "kubeguardian_admission_blind 0"} {
			if !strings.Contains(metrics, want) {
				return fmt.Errorf("no %s", want)
			}
		}
		if strings.Contains(metrics, "kubeguardian_admission_heartbeat_timestamp_seconds 0\n") {
			return fmt.Errorf("no probe came back")
		}
		return nil
	})
}

// get reads a page of the server.
func (l lab) get(path, token string) (string, error) { return l.fetch(web+path, token) }

// fetch reads what is at a URL.
func (l lab) fetch(url, token string) (string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, answer.Status, text)
	}
	return string(text), err
}

// wantAgent breaks into a container, and wants the server to have an alert of
// the node's agent, with pod and image.
func (l lab) wantAgent() {
	l.t.Helper()
	no := false
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: corev1.PodSpec{
		AutomountServiceAccountToken: &no,
		Containers:                   []corev1.Container{{Name: "web", Image: "localhost/intruder:lab"}},
	}}
	l.eventually("a pod to attack", func(ctx context.Context) error {
		_, err := l.client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		p, err := l.client.CoreV1().Pods("default").Get(ctx, "web", metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("it is %s", p.Status.Phase)
		}
		return err
	})
	l.eventually("the agent's alert", func(ctx context.Context) error {
		l.node("kubectl", "exec", "web", "--", "/intruder", "drop", "0s") // again, as the runtime may not have told of the pod yet
		pods, err := l.client.CoreV1().Pods(agents).List(ctx, listAll)
		if err != nil || len(pods.Items) != 1 {
			return fmt.Errorf("%d agents (%w)", len(pods.Items), err)
		}
		alerts, err := l.get("/api/v1/alerts", l.token())
		if err != nil {
			return err
		}
		for _, want := range []string{"Drifted program started", "/implant", "localhost/intruder", `"web"`} {
			if !strings.Contains(alerts, want) {
				return fmt.Errorf("no %s among the alerts of the server", want)
			}
		}
		return nil
	})
}

// token is the login token of the pages.
func (l lab) token() string {
	l.t.Helper()
	return strings.TrimSpace(l.node("cat", l.volume()+"/token"))
}

// wantAlert breaks the glass, and wants the server to alert.
func (l lab) wantAlert() {
	l.t.Helper()
	token := l.token()
	patch := fmt.Sprintf(`{"data": {"until": %q, "reason": "test of the chart"}}`, time.Now().Add(10*time.Minute).UTC().Format(time.RFC3339))
	if _, err := l.client.CoreV1().ConfigMaps(namespace).Patch(l.t.Context(), "break-glass", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("the server's alert", func(context.Context) error {
		alerts, err := l.get("/api/v1/alerts", token)
		if err == nil && !strings.Contains(alerts, "test of the chart") {
			err = fmt.Errorf("no alert of the break-glass in %s", alerts)
		}
		return err
	})
	if _, err := l.get("/api/v1/alerts", "wrong"); err == nil {
		l.t.Error("alerts are shown without a login")
	}
}

// wantRights wants every request of the server to have been within its rights,
// with some of these verbs, and none by the agent.
func (l lab) wantRights(verbs ...string) {
	l.t.Helper()
	kinds := map[string]bool{}
	for _, a := range l.asked(namespace) {
		if a.Status.Code == http.StatusForbidden || a.Status.Code == http.StatusUnauthorized {
			l.t.Errorf("refused: %s %s by %s", a.Verb, a.RequestURI, a.User.Username)
		}
		kinds[a.Verb] = true
	}
	for _, verb := range verbs {
		if !kinds[verb] {
			l.t.Errorf("the audit log has no %s of the server: nothing is shown", verb)
		}
	}
	if n := len(l.asked(agents)); n > 0 {
		l.t.Errorf("agents sent %d requests to the API server", n)
	}
}

// wantNothing wants the cluster to be as it was.
func (l lab) wantNothing(before map[string]bool) {
	l.t.Helper()
	if _, err := l.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(l.t.Context(), "kubeguardian", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		l.t.Errorf("the webhook is still registered (%v)", err)
	}
	var left []string
	l.eventually("removal", func(context.Context) error {
		left = nil
		for o := range l.listed() {
			if !before[o] && o != "Pod default/web" {
				left = append(left, o)
			}
		}
		if len(left) > 0 {
			slices.Sort(left)
			return fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
}
