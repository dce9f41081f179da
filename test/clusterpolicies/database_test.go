package clusterpolicies

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/config"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/incident"
	"github.com/kubeguardian/kubeguardian/server"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

// postgres returns the URL of an empty database.
func postgres(t *testing.T) string {
	t.Helper()
	_, url := postgrestest.ForTest(t)
	return url
}

// leader returns who leads, by the Lease.
func (w *world) leader() (string, error) {
	lease, err := w.client.CoordinationV1().Leases("kubeguardian").Get(w.Context(), "kubeguardian-leader", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", errors.Join(err, errors.New("nobody leads"))
	}
	return *lease.Spec.HolderIdentity, nil
}

// TestMain lets this binary play a replica that is killed; see [world.process].
func TestMain(m *testing.M) {
	if file := os.Getenv("TEST_SERVE"); file != "" {
		if err := serveFile(file, os.Getenv("TEST_KUBECONFIG")); err != nil {
			fmt.Println(err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveFile(file, kubeconfig string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	cluster, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	s, err := server.New(context.Background(), server.Options{Config: cfg, Cluster: cluster, Log: slog.New(slog.NewTextHandler(os.Stdout, nil)), Version: "test"})
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}

// process starts a replica in a process of its own, and returns what kills it.
func (w *world) process(dir, settings string) (kill func()) {
	w.Helper()
	kubeconfig := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: test,
		clusters: [{name: test, cluster: {server: %q, insecure-skip-tls-verify: true}}],
		users: [{name: test, user: {token: admin, as: "system:serviceaccount:kubeguardian:kubeguardian", as-groups: ["system:serviceaccounts", "system:authenticated"]}}],
		contexts: [{name: test, context: {cluster: test, user: test}}]}`, w.admin.Host)
	cfg := fmt.Sprintf("cluster: test\ndataDir: %s\nweb: {listen: %q}\nwebhook: {listen: %q}\n%s\n", dir, free(w.T), free(w.T), settings)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "kubeconfig"), []byte(kubeconfig), 0o600), os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(cfg), 0o600)); err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_SERVE="+filepath.Join(dir, "config.yaml"), "TEST_KUBECONFIG="+filepath.Join(dir, "kubeconfig"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = w.Output(), w.Output()
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	w.Cleanup(kill)
	return kill
}

// TestReplicasOnOneDatabase: servers share a PostgreSQL. All show what is stored,
// one joins it, and when that one is killed or ends another does, so that each
// alert is in one incident.
func TestReplicasOnOneDatabase(t *testing.T) {
	w := newWorld(t)
	w.apply(string(content.RBAC()))
	url, dir := postgres(t), t.TempDir()
	urlFile := filepath.Join(dir, "url")
	if err := os.WriteFile(urlFile, []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own := func(name string) string {
		own := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(own, 0o700), os.WriteFile(filepath.Join(own, "replica"), []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
		return own
	}
	database := fmt.Sprintf("database: {urlFile: %s", urlFile)
	leads := func(want string) {
		t.Helper()
		w.eventually(want+" leads", func() error {
			have, err := w.leader()
			if err == nil && have != want {
				err = fmt.Errorf("%s does", have)
			}
			return err
		})
	}
	kill := w.process(own("killed"), database+"}")
	leads("killed")
	replicas := map[string]*guard{"one": w.serve(own("one"), "}\n"+database)}
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	add := func(from, to int) {
		t.Helper()
		var alerts []alert.Alert
		for i := from; i < to; i++ {
			alerts = append(alerts, alert.Alert{
				ID: fmt.Sprint("alert-", i), Time: time.Now().UTC(), Rule: fmt.Sprint("Rule ", i%3), Priority: alert.Critical, Source: "k8s_audit",
				Cluster: "test", Tactics: []string{"execution"}, Entities: []alert.Entity{{Kind: alert.User, Name: fmt.Sprint("user-", i%7)}},
			})
		}
		if _, err := db.AddAlerts(t.Context(), alerts); err != nil {
			t.Fatal(err)
		}
	}
	joined := func(want int) {
		t.Helper()
		w.eventually(fmt.Sprintf("%d alerts are joined", want), func() error { return onceEach(t.Context(), db, want) })
	}
	add(0, 100)
	joined(100)
	kill()
	add(100, 200)
	leads("one")
	joined(200)
	replicas["two"] = w.serve(own("two"), "}\n"+database)
	for name, r := range replicas {
		w.eventually(name+" shows what is stored", func() error {
			body, err := r.read("/api/v1/alerts?limit=300")
			var page struct{ Items []alert.Alert }
			if err == nil {
				err = json.Unmarshal(body, &page)
			}
			if err == nil && len(page.Items) < 200 {
				err = fmt.Errorf("%d alerts: %.200s", len(page.Items), body)
			}
			return err
		})
	}
	// A leader that ends hands over at once, long before its lease ends.
	replicas["one"].kill()
	add(200, 300)
	leads("two")
	joined(300)
}

// onceEach expects each of some alerts to be in one incident, once.
func onceEach(ctx context.Context, db *store.Store, want int) error {
	page, _, err := db.Incidents(ctx, incident.Query{Limit: 1000})
	if err != nil {
		return err
	}
	seen := map[string]string{}
	for _, i := range page {
		for _, s := range i.Signals {
			if before := seen[s.Alert]; before != "" {
				return fmt.Errorf("alert %s is in incidents %s and %s", s.Alert, before, i.ID)
			}
			seen[s.Alert] = i.ID
		}
	}
	if len(seen) < want {
		return fmt.Errorf("%d alerts are joined", len(seen))
	}
	return nil
}
