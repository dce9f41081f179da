package observe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/agent"
	"github.com/kubeguardian/kubeguardian/bus/leaf"
	"github.com/kubeguardian/kubeguardian/charts/dashboard"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/sensor"
	"github.com/kubeguardian/kubeguardian/server"
)

// TestEveryPanel lets a real Prometheus scrape a real server, which guards a real
// API server, and a real agent: every metric of the dashboards and of the rules is
// there, and every expression is one.
func TestEveryPanel(t *testing.T) {
	if testing.Short() {
		t.Skip("brings up an API server and Prometheus")
	}
	program := tool(t, "prometheus")
	node := startAgent(t)
	page, spoke := guard(t)
	p := startPrometheus(t, program, node, page, spoke)
	known := p.names()
	check := func(where, expr string) {
		t.Helper()
		expr = strings.ReplaceAll(expr, "$__rate_interval", "30s")
		for _, name := range metrics(expr) {
			if !known[name] {
				t.Errorf("%s: nobody exports %s", where, name)
			}
		}
		if err := p.query(expr, nil); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	asked := 0
	for _, d := range dashboard.All() {
		for _, row := range d.Rows {
			for _, panel := range row.Panels {
				for _, q := range panel.Queries {
					check(d.Name+": "+panel.Title, q.Expr)
					asked++
				}
			}
		}
	}
	groups := readRules(t).Groups
	for _, g := range groups {
		for _, r := range g.Rules {
			known[r.Record] = true // also where there is nothing to record yet
		}
	}
	for _, g := range groups {
		for _, r := range g.Rules {
			check(r.Alert+r.Record, r.Expr)
			asked++
		}
	}
	if asked < 50 {
		t.Errorf("%d expressions were asked", asked)
	}
	p.wantRulesHealthy()
	documented(t, known)
}

// documented wants each metric of ours to be described.
func documented(t *testing.T, known map[string]bool) {
	t.Helper()
	var text strings.Builder
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(data)
	}
	for name := range known {
		base := name
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if whole := strings.TrimSuffix(name, part); known[whole+"_bucket"] {
				base = whole
			}
		}
		short := strings.TrimPrefix(strings.TrimPrefix(base, "kubeguardian_"), "agent_")
		if strings.HasPrefix(name, "kubeguardian_") && !strings.Contains(text.String(), "`"+short+"`") && !strings.Contains(text.String(), "`"+short+"{") && !strings.Contains(text.String(), base) {
			t.Errorf("no page of docs describes %s", base)
		}
	}
}

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// startAgent runs an agent on this machine, and returns where its status is.
func startAgent(t *testing.T) string {
	t.Helper()
	c := agent.DefaultConfig()
	c.CRI, c.Status = "none", "127.0.0.1:0"
	a, err := agent.New(agent.Options{Config: c, Out: io.Discard, Log: slog.New(slog.DiscardHandler), Open: agent.OpenSensor})
	if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrNotExist) || errors.Is(err, sensor.ErrNotSupported) {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatalf("no programs in the kernel: %v", err)
		}
		t.Skipf("no programs in the kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a.StatusAddr().String()
}

// guard runs the server before an API server of the lab, as the hub of a cluster,
// lets something happen, and returns the addresses of the metrics of both.
func guard(t *testing.T) (hub, spoke string) {
	t.Helper()
	dir := t.TempDir()
	key, line, err := leaf.NewKey("eu-1")
	if err = errors.Join(err, os.WriteFile(filepath.Join(dir, "key"), key, 0o600), os.WriteFile(filepath.Join(dir, "clusters"), []byte(line+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("cluster: central\ndataDir: %s\nweb: {listen: %q}\nwebhook: {listen: %q}\ndetection: {heartbeat: 1s}\nscan: {interval: 10s}\nbus: {leafNodes: {listen: \"127.0.0.1:0\", clusters: %q}}\n",
		filepath.Join(dir, "data"), free(t), free(t), filepath.Join(dir, "clusters"))
	cfg, err := config.Parse("config.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := server.APIServerKubeconfig(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	sink := filepath.Join(dir, "webhook.kubeconfig")
	if err := os.WriteFile(sink, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	cluster := labUp(t, dir, sink)
	s := serve(t, cfg, cluster)
	hub = strings.TrimPrefix(s.WebURL(), "http://")
	happen(t, cluster, hub)

	text = fmt.Sprintf("cluster: eu-1\ndataDir: %s\nweb: {listen: %q}\nwebhook: {listen: %q}\nadmission: {enabled: false}\nbus: {hub: {url: %q, keyFile: %q}}\n",
		filepath.Join(dir, "spoke"), free(t), free(t), s.HubURL(), filepath.Join(dir, "key"))
	if cfg, err = config.Parse("spoke.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // its own cluster, which never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	nobody := &rest.Config{Host: "http://" + silent.Addr().String()}
	return hub, strings.TrimPrefix(serve(t, cfg, nobody).WebURL(), "http://")
}

// serve runs a server until the test ends.
func serve(t *testing.T, cfg *config.Config, cluster *rest.Config) *server.Server {
	t.Helper()
	s, err := server.New(t.Context(), server.Options{Config: cfg, Cluster: cluster, Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, s.Stop()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// labUp brings up a control plane that sends its audit log as a kubeconfig says.
func labUp(t *testing.T, dir, sink string) *rest.Config {
	t.Helper()
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
	if out, err := exec.CommandContext(t.Context(), lab, "up", "--dir", state, "--webhook-kubeconfig", sink).CombinedOutput(); err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	c, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// happen reads secrets, which raises alerts, twice, and makes pods that violate
// policies, until the server shows both.
func happen(t *testing.T, cluster *rest.Config, address string) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(cluster)
	for _, name := range []string{"kubeguardian"} {
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().ConfigMaps(name).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "heartbeat"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wants := []string{
		"kubeguardian_alerts_total{", "kubeguardian_alerts_repeated_total{", "kubeguardian_admission_decisions_total{", "kubeguardian_score_total_points", "kubeguardian_audit_violations{",
		"kubeguardian_findings{", `kubeguardian_incidents_total{event="opened"}`, "kubeguardian_audit_heartbeat_timestamp_seconds 1",
	}
	missing := wants
	for n := 0; len(missing) > 0; n++ {
		if n == 90 {
			t.Fatalf("the server does not export %v", missing)
		}
		if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "web-", Namespace: "default"}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "web", Image: "nginx", SecurityContext: &corev1.SecurityContext{Privileged: new(true)}}}}}
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Log(err) // a denial is a decision, too
		}
		time.Sleep(time.Second)
		text := get(t, "http://"+address+"/metrics")
		missing = nil
		for _, want := range wants {
			if !strings.Contains(text, want) {
				missing = append(missing, want)
			}
		}
	}
}

func get(t *testing.T, address string) string {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A prometheus is a real one.
type prometheus struct {
	t       *testing.T
	address string
}

// startPrometheus scrapes an agent, a hub and a cluster that reports to it, and
// returns when all were.
func startPrometheus(t *testing.T, program, agent, hub, spoke string) prometheus {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: server
    static_configs: [{targets: [%q, %q]}]
  - job_name: agent
    static_configs: [{targets: [%q]}]
`, rules, hub, spoke, agent)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := prometheus{t, free(t)}
	cmd := exec.Command(program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address, "--log.level=warn")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("prometheus: %v", err)
		}
	})
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		var up []struct{ Value [2]any }
		err := p.query("sum(up) + (count(kubeguardian:audit_events:rate5m) > 0)", &up)
		if err == nil && len(up) == 1 && up[0].Value[1] == "4" {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("prometheus does not scrape all three: %v (%v)", up, err)
		}
	}
}

// ask calls the API of Prometheus.
func (p prometheus) ask(path string, into any) error {
	answer, err := http.Get("http://" + p.address + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		return err
	}
	if body.Status != "success" {
		return errors.New(body.Error)
	}
	return json.Unmarshal(body.Data, into)
}

// query evaluates an expression now.
func (p prometheus) query(expr string, into any) error {
	var out struct{ Result json.RawMessage }
	if err := p.ask("/api/v1/query?query="+url.QueryEscape(expr), &out); err != nil {
		return fmt.Errorf("%s: %w", expr, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out.Result, into)
}

// names are the metrics that were scraped or recorded.
func (p prometheus) names() map[string]bool {
	p.t.Helper()
	var names []string
	if err := p.ask("/api/v1/label/__name__/values", &names); err != nil {
		p.t.Fatal(err)
	}
	out := map[string]bool{}
	for _, name := range names {
		out[name] = true
	}
	return out
}

// wantRulesHealthy wants every rule to have been evaluated without an error.
func (p prometheus) wantRulesHealthy() {
	p.t.Helper()
	var out struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.ask("/api/v1/rules", &out); err != nil {
		p.t.Fatal(err)
	}
	count := 0
	for _, g := range out.Groups {
		for _, r := range g.Rules {
			count++
			if r.Health != "ok" {
				p.t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if count == 0 {
		p.t.Error("no rules were evaluated")
	}
}
