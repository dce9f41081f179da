//go:build ha

package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	chart      = root + "/charts/kubeguardian"
	webPort    = "8443"
	loginToken = "a-login-token-of-replicas"
	leadership = "kubeguardian-leader"
	binding    = "Binding to cluster-admin"
	drift      = "Drifted program started"
)

// A guarded cluster has several replicas of the server, a PostgreSQL and a NATS.
type guarded struct {
	lab
	program string // the command line
	local   string // configuration by which it knows the authority of the replicas
	release Release
	values  map[string]any
	raised  *raiser
}

// TestReplicas installs the chart with what several replicas share, takes a replica
// away and upgrades the release while people and attackers are at work, makes it a
// hub that another cluster reports to, and removes all again.
func TestReplicas(t *testing.T) {
	g := newGuarded(t)
	before := g.listed()
	if err := g.release.Install(t.Context(), chart, g.values); err != nil {
		g.explain()
		t.Fatal(err)
	}
	g.wantReady()
	g.wantSpread()
	g.victim()
	g.raised = g.raise()
	g.eventually("alerts from both ways before anything goes wrong", g.all)
	g.killLeader()
	g.wantReady()
	g.upgrade()
	g.wantReady()
	spoke := g.joinSpoke()
	g.revoke(spoke)
	g.raised.stop()
	g.eventually("all alerts, once, in both replicas", g.all)
	t.Logf("%d bindings and %d programs, each alerted once; reviews without an answer: %d of %d after a kill, none else",
		len(g.raised.bindings), len(g.raised.programs), g.raised.unanswered, g.raised.asked)
	g.wantRights("create") // the audit policy keeps little of what is as it should be
	g.wantHealth()
	if err := g.release.Uninstall(); err != nil {
		g.explain()
		t.Fatal(err)
	}
	for _, name := range slices.Collect(maps.Keys(g.raised.bindings)) {
		if err := g.client.RbacV1().ClusterRoleBindings().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	g.wantNothing(before)
}

// newGuarded brings up a lab whose API server sends its audit log to the release
// that is to come, and starts what the replicas share.
func newGuarded(t *testing.T) *guarded {
	t.Helper()
	dir := t.TempDir()
	program, err := filepath.Abs(root + "/bin/kubeguardian")
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{program: program, local: filepath.Join(dir, "local.yaml")}
	l := lab{t: t}
	l.run("make", "-C", root, "build")
	config := fmt.Sprintf("dataDir: %s\nwebhook: {service: {namespace: %s, name: kubeguardian}}\n", filepath.Join(dir, "data"), namespace)
	write(t, g.local, []byte(config))
	policy := filepath.Join(dir, "audit-policy.yaml")
	write(t, policy, []byte(l.run(g.program, "setup", "audit-policy")))
	g.lab = up(t, "--audit-policy", policy, "--webhook-kubeconfig", g.kubeconfigOfAudit(l))
	g.images()
	g.share(filepath.Join(dir, "data", "pki", "ca.pem"))
	g.release = Release{Kubeconfig: g.kubeconfig(), Namespace: namespace, Name: "guard", Timeout: 8 * time.Minute}
	return g
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// kubeconfigOfAudit writes what the API server gets: it does not ask the cluster's
// DNS, and finds the Service by its address.
func (g *guarded) kubeconfigOfAudit(l lab) string {
	l.t.Helper()
	config, err := clientcmd.Load([]byte(l.run(g.program, "setup", "kubeconfig", "--config", g.local)))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, c := range config.Clusters {
		server, err := url.Parse(c.Server)
		if err != nil {
			l.t.Fatal(err)
		}
		c.TLSServerName = server.Hostname()
		server.Host = "10.96.7.7:443"
		c.Server = server.String()
	}
	file := filepath.Join(filepath.Dir(g.local), "audit.kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		l.t.Fatal(err)
	}
	return file
}

// share starts PostgreSQL and NATS, and makes the Secrets by which replicas and
// agents reach them, and that of the authority that the API server knows.
func (g *guarded) share(authority string) {
	g.t.Helper()
	s := newSigner(g.t)
	database := startPostgres(g.t, s, "/etc/kubeguardian/database/ca.crt")
	nats := startNATS(g.t, s)
	ca, err := os.ReadFile(authority)
	if err != nil {
		g.t.Fatal(err)
	}
	for name, level := range map[string]string{namespace: "restricted", agents: "privileged"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": level}}}
		if _, err := g.client.CoreV1().Namespaces().Create(g.t.Context(), ns, metav1.CreateOptions{}); err != nil {
			g.t.Fatal(err)
		}
	}
	g.secret(namespace, "database", map[string][]byte{"url": []byte(database), "ca.crt": s.pem})
	g.secret(namespace, "nats", map[string][]byte{"nats.creds": nats.server, "ca.crt": s.pem})
	g.secret(agents, "nats", map[string][]byte{"nats.creds": nats.agent, "ca.crt": s.pem})
	g.secret(namespace, "login", map[string][]byte{"token": []byte(loginToken)})
	g.secret(namespace, "authority", map[string][]byte{"ca.pem": ca})
	g.values = g.replicas(database, nats.url)
}

func (g *guarded) secret(in, name string, data map[string][]byte) {
	g.t.Helper()
	if _, err := g.client.CoreV1().Secrets(in).Create(g.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{}); err != nil {
		g.t.Fatal(err)
	}
}

// replicas are the values of two replicas that keep every alert.
func (g *guarded) replicas(database, nats string) map[string]any {
	type object = map[string]any
	v := values(g.port())
	u, err := url.Parse(database)
	if err != nil {
		g.t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscan(u.Port(), &port); err != nil {
		g.t.Fatal(err)
	}
	here := []any{object{"ipBlock": object{"cidr": machine + "/32"}}}
	server := v["server"].(object)
	server["replicas"], server["tokenSecret"], server["authoritySecret"] = 2, "login", "authority"
	server["config"] = object{
		"cluster":   "central",
		"admission": object{"requireClientCertificate": true},
		"detection": object{"cooldown": []any{object{"within": "0s"}}},
		"scan":      object{"interval": "30s"},
	}
	v["agent"].(object)["createNamespace"] = false
	v["database"] = object{"urlSecret": "database"}
	v["bus"] = object{"external": object{"url": nats, "credentialsSecret": "nats", "ca": true}}
	policy := v["networkPolicy"].(object)
	policy["databasePort"], policy["database"], policy["bus"] = port, here, here
	return v
}

// servers returns the pods of the server that are ready.
func (g *guarded) servers(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := g.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
	}), nil
}

// page reads a page of one replica, as who has the login token.
func (g *guarded) page(pod corev1.Pod, path string) (string, error) {
	return g.fetch("https://"+pod.Status.PodIP+":"+webPort+path, loginToken)
}

// wantReady wants two replicas that are ready, an agent that both hear, and an API
// server that asks them.
func (g *guarded) wantReady() {
	g.t.Helper()
	g.eventually("two replicas that know the agent", func(ctx context.Context) error {
		pods, err := g.servers(ctx)
		if err != nil || len(pods) != 2 {
			return fmt.Errorf("%d replicas are ready (%w)", len(pods), err)
		}
		for _, p := range pods {
			seen, err := g.page(p, "/api/v1/agents")
			if err != nil {
				return err
			}
			var list struct {
				Items []struct{ Node, Status string }
			}
			if err := json.Unmarshal([]byte(seen), &list); err != nil {
				return err
			}
			if len(list.Items) != 1 || list.Items[0].Node != "lab" || list.Items[0].Status == "silent" {
				return fmt.Errorf("%s knows of agents %s", p.Name, seen)
			}
		}
		return nil
	})
	g.wantAdmission()
}

// wantSpread wants a budget of disruptions that keeps a replica, and replicas that
// are told to keep apart.
func (g *guarded) wantSpread() {
	g.t.Helper()
	g.eventually("the budget of disruptions", func(ctx context.Context) error {
		budget, err := g.client.PolicyV1().PodDisruptionBudgets(namespace).Get(ctx, "kubeguardian", metav1.GetOptions{})
		if err == nil && (budget.Status.DisruptionsAllowed != 1 || budget.Status.CurrentHealthy != 2) {
			err = fmt.Errorf("it is %+v", budget.Status)
		}
		return err
	})
	pods, err := g.servers(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	for _, p := range pods {
		if len(p.Spec.TopologySpreadConstraints) != 2 {
			g.t.Errorf("%s is spread by %+v", p.Name, p.Spec.TopologySpreadConstraints)
		}
	}
}

// wantHealth wants no replica to complain of anything but the cluster that has a key
// and never reports.
func (g *guarded) wantHealth() {
	g.t.Helper()
	pods, err := g.servers(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	for _, p := range pods {
		text, err := g.page(p, "/api/v1/health")
		var health struct{ Problems []string }
		if err := errors.Join(err, json.Unmarshal([]byte(text), &health)); err != nil {
			g.t.Error(err)
		}
		for _, problem := range health.Problems {
			if !strings.HasPrefix(problem, "Clusters may report and never have") {
				g.t.Errorf("%s complains: %s", p.Name, problem)
			}
		}
	}
}

// victim starts the pod that is attacked.
func (g *guarded) victim() {
	g.t.Helper()
	no := false
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: corev1.PodSpec{
		AutomountServiceAccountToken: &no,
		Containers:                   []corev1.Container{{Name: "web", Image: "localhost/intruder:lab"}},
	}}
	g.eventually("a pod to attack", func(ctx context.Context) error {
		_, err := g.client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		p, err := g.client.CoreV1().Pods("default").Get(ctx, "web", metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("it is %s", p.Status.Phase)
		}
		return err
	})
	time.Sleep(2 * time.Second) // the runtime is asked beside the events
}

// A raiser does what is to be judged and to be alerted on, again and again: it binds
// an account to cluster-admin, and starts new programs in a container.
type raiser struct {
	stop func()

	mu                sync.Mutex
	bindings          map[string]bool
	programs          map[string]bool
	asked, unanswered int
	tolerant          bool // a replica was killed: some reviews are not answered
	wrong             []string
}

// heard collects the warnings of requests.
type heard struct {
	mu    sync.Mutex
	texts map[string]string
}

// HandleWarningHeaderWithContext is rest.WarningHandlerWithContext.
func (h *heard) HandleWarningHeaderWithContext(ctx context.Context, _ int, _ string, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name, ok := ctx.Value(nameKey{}).(string); ok {
		h.texts[name] += text + "\n"
	}
}

type nameKey struct{}

func (g *guarded) raise() *raiser {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	r := &raiser{bindings: map[string]bool{}, programs: map[string]bool{}}
	config := rest.CopyConfig(g.rest)
	warnings := &heard{texts: map[string]string{}}
	config.WarningHandlerWithContext = warnings
	client := kubernetes.NewForConfigOrDie(config)
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; stay(ctx, 200*time.Millisecond); i++ {
			r.bind(context.WithoutCancel(ctx), client, warnings, fmt.Sprint("raised-", i))
		}
	})
	group.Go(func() {
		for i := 0; stay(ctx, 3*time.Second); i++ {
			r.start(g, fmt.Sprint("implant-", i))
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	g.t.Cleanup(r.stop)
	return r
}

func (r *raiser) complain(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// bind wants the request to be judged: the built-in policies warn of it.
func (r *raiser) bind(ctx context.Context, client kubernetes.Interface, warnings *heard, name string) {
	object := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "default"}}}
	_, err := client.RbacV1().ClusterRoleBindings().Create(context.WithValue(ctx, nameKey{}, name), object, metav1.CreateOptions{})
	warnings.mu.Lock()
	text := warnings.texts[name]
	delete(warnings.texts, name)
	warnings.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.complain("%s: %v", name, err)
		return
	}
	r.asked++
	r.bindings[name] = true
	if strings.Contains(text, "[cluster-admin-bindings]") {
		return
	}
	r.unanswered++
	if !r.tolerant {
		r.complain("%s was not judged: %q", name, text)
	}
}

// start breaks into the container.
func (r *raiser) start(g *guarded, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, g.lab.program, "node", "--dir", g.dir, "--", "kubectl", "exec", "web", "--", "/intruder", "drop", "0s", name).CombinedOutput()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || !bytes.Contains(out, []byte("lingered")) {
		r.complain("%s: %v: %s", name, err, out)
		return
	}
	r.programs[name] = true
}

// tolerate says whether a review may go unanswered.
func (r *raiser) tolerate(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tolerant = yes
}

// soFar returns what was raised until now, and fails the test for what went wrong.
func (r *raiser) soFar(t *testing.T) (bindings, programs map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range r.wrong {
		t.Error(text)
	}
	r.wrong = nil
	return maps.Clone(r.bindings), maps.Clone(r.programs)
}

// all wants each replica to show each alert that was to be raised until now, once,
// and no other.
func (g *guarded) all(ctx context.Context) error {
	bindings, programs := g.raised.soFar(g.t)
	if len(bindings) < 5 || len(programs) < 2 {
		return errors.New("nothing has happened yet")
	}
	pods, err := g.servers(ctx)
	if err != nil || len(pods) != 2 {
		return fmt.Errorf("%d replicas are ready (%w)", len(pods), err)
	}
	for _, p := range pods {
		for field, want := range map[string]struct {
			rule  string
			names map[string]bool
		}{"ka.target.name": {binding, bindings}, "proc.exepath": {drift, programs}} {
			have, err := g.counts(p, want.rule, field)
			if err != nil {
				return err
			}
			missing := 0
			for name := range want.names {
				switch n := have[name]; {
				case n == 0:
					missing++
				case n > 1:
					g.t.Errorf("%s: %d alerts of %s", p.Name, n, name)
				}
			}
			if missing > 0 {
				return fmt.Errorf("%s: %d of %d alerts of %q are missing", p.Name, missing, len(want.names), want.rule)
			}
		}
	}
	return nil
}

// counts returns how many alerts of a rule a replica shows for each value of a field.
func (g *guarded) counts(pod corev1.Pod, rule, field string) (map[string]int, error) {
	out, before := map[string]int{}, ""
	for {
		text, err := g.page(pod, "/api/v1/alerts?limit=200&rule="+url.QueryEscape(rule)+"&before="+url.QueryEscape(before))
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []struct {
				Cluster      string
				OutputFields map[string]any `json:"output_fields"`
			}
			Next string
		}
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			return nil, err
		}
		for _, a := range page.Items {
			out[strings.TrimPrefix(fmt.Sprint(a.OutputFields[field]), "/")]++
		}
		if before = page.Next; before == "" {
			return out, nil
		}
	}
}

// leader returns the replica that leads.
func (g *guarded) leader(ctx context.Context) (corev1.Pod, error) {
	lease, err := g.client.CoordinationV1().Leases(namespace).Get(ctx, leadership, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil {
		return corev1.Pod{}, fmt.Errorf("nobody leads (%w)", err)
	}
	pods, err := g.servers(ctx)
	for _, p := range pods {
		if strings.HasPrefix(*lease.Spec.HolderIdentity, p.Name+"-") {
			return p, nil
		}
	}
	return corev1.Pod{}, fmt.Errorf("%q leads, which is no replica that is ready (%w)", *lease.Spec.HolderIdentity, err)
}

// killLeader kills the replica that leads, with its pod, and wants another to lead
// and all that happens meanwhile to be alerted on.
func (g *guarded) killLeader() {
	g.t.Helper()
	var first corev1.Pod
	g.eventually("a leader", func(ctx context.Context) (err error) {
		first, err = g.leader(ctx)
		return err
	})
	pid := g.process(first)
	g.raised.tolerate(true)
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		g.t.Fatal(err)
	}
	now := int64(0)
	if err := g.client.CoreV1().Pods(namespace).Delete(g.t.Context(), first.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		g.t.Fatal(err)
	}
	g.eventually("another leader", func(ctx context.Context) error {
		p, err := g.leader(ctx)
		if err == nil && p.UID == first.UID {
			err = fmt.Errorf("%s leads still", p.Name)
		}
		return err
	})
	g.t.Logf("another replica leads %.0f s after the first was killed", time.Since(began).Seconds())
	g.wantReady()
	g.raised.tolerate(false)
	g.eventually("all alerts after a replica was killed", g.all)
}

// process returns the process of a pod's server, in the numbers of this machine.
func (g *guarded) process(pod corev1.Pod) int {
	g.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, file := range files {
		cgroups, _ := os.ReadFile(file) // it may have ended
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		var pid int
		if bytes.Contains(cgroups, []byte("pod"+string(pod.UID))) && bytes.Contains(command, []byte("\x00serve\x00")) {
			if _, err := fmt.Sscanf(file, "/proc/%d/cgroup", &pid); err == nil {
				return pid
			}
		}
	}
	g.t.Fatalf("no process of %s found", pod.Name)
	return 0
}

// upgrade makes the release a hub, which puts new replicas in the place of the old
// ones. No review stays without an answer, and no alert is lost.
func (g *guarded) upgrade() {
	g.t.Helper()
	old, err := g.servers(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	g.values["bus"].(map[string]any)["leafNodes"] = map[string]any{
		"enabled": true, "hosts": []any{"10.99.0.2"}, "serviceType": "NodePort", "clusters": map[string]any{"eu-1": g.newKey()},
	}
	began := time.Now()
	if err := g.release.Upgrade(g.t.Context(), chart, g.values); err != nil {
		g.explain()
		g.t.Fatal(err)
	}
	g.t.Logf("upgraded in %.0f s", time.Since(began).Seconds())
	g.eventually("new replicas alone", func(ctx context.Context) error {
		pods, err := g.client.CoreV1().Pods(namespace).List(ctx, listAll)
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if slices.ContainsFunc(old, func(o corev1.Pod) bool { return o.UID == p.UID }) {
				return fmt.Errorf("%s is there still", p.Name)
			}
		}
		return nil
	})
	g.eventually("all alerts after an upgrade", g.all)
}

// newKey makes the key of the cluster that is to report, and returns how the hub
// knows it.
func (g *guarded) newKey() string {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), g.program, "setup", "cluster-key", "eu-1")
	var key, line bytes.Buffer
	cmd.Stdout, cmd.Stderr = &key, &line
	if err := cmd.Run(); err != nil {
		g.t.Fatalf("%v: %s", err, &line)
	}
	write(g.t, g.hubKey(), key.Bytes())
	words := strings.Fields(line.String())
	return words[len(words)-1]
}

func (g *guarded) hubKey() string { return filepath.Join(filepath.Dir(g.local), "hub.key") }

// A spoke is another cluster with a server of its own.
type spoke struct {
	client kubernetes.Interface
	web    string
	token  string // file
}

// joinSpoke brings up another cluster that reports to the release, and wants its
// alert to be there.
func (g *guarded) joinSpoke() *spoke {
	g.t.Helper()
	dir := g.t.TempDir()
	state := filepath.Join(dir, "lab")
	g.t.Cleanup(func() {
		if out, err := exec.Command(g.lab.program, "down", "--dir", state).CombinedOutput(); err != nil {
			g.t.Errorf("lab down: %v\n%s", err, out)
		}
	})
	g.run(g.lab.program, "up", "--dir", state)
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "admin.kubeconfig"))
	if err != nil {
		g.t.Fatal(err)
	}
	service, err := g.client.CoreV1().Services(namespace).Get(g.t.Context(), "kubeguardian-hub", metav1.GetOptions{})
	if err != nil {
		g.t.Fatal(err)
	}
	ca := filepath.Join(dir, "hub.crt")
	write(g.t, ca, []byte(g.run(g.program, "setup", "agent-ca", "--config", g.local)))
	s := &spoke{client: kubernetes.NewForConfigOrDie(config), web: "127.0.0.1:" + freePort(g.t), token: filepath.Join(dir, "data", "token")}
	text := fmt.Sprintf(`cluster: eu-1
dataDir: %s
kubeconfig: %s
web: {listen: %q}
webhook: {listen: "127.0.0.1:%s"}
admission: {enabled: false}
detection: {auditFiles: [%s]}
bus: {hub: {url: "tls://10.99.0.2:%d", keyFile: %s, caFile: %s}}
`, filepath.Join(dir, "data"), filepath.Join(state, "admin.kubeconfig"), s.web, freePort(g.t), filepath.Join(state, "audit.jsonl"),
		service.Spec.Ports[0].NodePort, g.hubKey(), ca)
	file := filepath.Join(dir, "spoke.yaml")
	write(g.t, file, []byte(text))
	g.serve(file)
	s.attack(g.t, "spoke-first")
	g.eventually("an alert of the spoke in both replicas of the hub", func(ctx context.Context) error { return g.has(ctx, "spoke-first") })
	return s
}

// serve runs a server until the test ends.
func (g *guarded) serve(config string) {
	g.t.Helper()
	cmd := exec.Command(g.program, "serve", "--config", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // may have ended
		if err := cmd.Wait(); err != nil || g.t.Failed() {
			g.t.Logf("spoke: %v\n%s", err, log.Bytes()[max(0, log.Len()-4000):])
		}
	})
}

// attack does in the spoke's cluster what its server alerts on.
func (s *spoke) attack(t *testing.T, name string) {
	t.Helper()
	object := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "default"}}}
	if _, err := s.client.RbacV1().ClusterRoleBindings().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// has wants one alert of the spoke about a binding in each replica of the hub.
func (g *guarded) has(ctx context.Context, name string) error {
	pods, err := g.servers(ctx)
	if err != nil || len(pods) != 2 {
		return fmt.Errorf("%d replicas are ready (%w)", len(pods), err)
	}
	for _, p := range pods {
		text, err := g.page(p, "/api/v1/alerts?cluster=eu-1&rule="+url.QueryEscape(binding))
		if err != nil {
			return err
		}
		if n := strings.Count(text, `"ka.target.name":"`+name+`"`); n != 1 {
			return fmt.Errorf("%s has %d alerts of the spoke about %s", p.Name, n, name)
		}
	}
	return nil
}

// revoke takes the spoke's key from the hub, and wants it to be refused: what
// happens in its cluster afterwards stays there.
func (g *guarded) revoke(s *spoke) {
	g.t.Helper()
	g.values["bus"].(map[string]any)["leafNodes"].(map[string]any)["clusters"] = map[string]any{"other": g.newKey()}
	if err := g.release.Upgrade(g.t.Context(), chart, g.values); err != nil {
		g.explain()
		g.t.Fatal(err)
	}
	g.eventually("the spoke to be refused", func(ctx context.Context) error {
		token, err := os.ReadFile(s.token)
		if err != nil {
			return err
		}
		metrics, err := g.fetch("http://"+s.web+"/metrics", strings.TrimSpace(string(token)))
		if err == nil && !strings.Contains(metrics, "kubeguardian_hub_connected 0\n") {
			err = errors.New("the spoke is connected still")
		}
		return err
	})
	s.attack(g.t, "spoke-second")
	g.eventually("the alert to wait in the spoke", func(ctx context.Context) error {
		token, err := os.ReadFile(s.token)
		if err != nil {
			return err
		}
		alerts, err := g.fetch("http://"+s.web+"/api/v1/alerts", strings.TrimSpace(string(token)))
		if err == nil && !strings.Contains(alerts, "spoke-second") {
			err = errors.New("the spoke has not alerted")
		}
		return err
	})
	g.eventually("a refusal that the hub counts", func(ctx context.Context) error {
		pods, err := g.servers(ctx)
		if err != nil {
			return err
		}
		for _, p := range pods {
			metrics, err := g.page(p, "/metrics")
			if err != nil {
				return err
			}
			if strings.Contains(metrics, "kubeguardian_cluster_connections_refused_total") && !strings.Contains(metrics, "kubeguardian_cluster_connections_refused_total 0\n") {
				return nil
			}
		}
		return errors.New("no replica has refused it")
	})
	if err := g.has(g.t.Context(), "spoke-second"); err == nil {
		g.t.Error("the hub has an alert of a cluster whose key was taken away")
	}
}
