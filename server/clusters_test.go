package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/leaf"
)

// startSpoke starts the server of a cluster that reports to a hub, whose file of
// clusters it is added to.
func startSpoke(t *testing.T, name, url, members string) *running {
	t.Helper()
	key, line, err := leaf.NewKey(name)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	f, err := os.OpenFile(members, os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
	}
	if err != nil || f.Close() != nil || os.WriteFile(file, key, 0o600) != nil {
		t.Fatal("the key is not written: ", err)
	}
	o := options(t, t.TempDir(), fmt.Sprintf("bus: {hub: {url: %q, keyFile: %q}}\n", url, file))
	o.Config.Cluster, o.Cluster = name, onePod(t)
	return start(t, o)
}

// until waits until a page has all texts. It fails when nothing changes for a minute.
func (r *running) until(path string, want ...string) {
	r.t.Helper()
	last, moved := "", time.Now()
	for {
		_, body := r.page(path)
		missing := ""
		for _, text := range want {
			if !strings.Contains(body, text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		if body != last {
			last, moved = body, time.Now()
		}
		if time.Since(moved) > time.Minute {
			r.t.Fatalf("%s has no %s:\n%.3000s", path, missing, body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestManyClusters: alerts of two clusters are on the hub, by their names, with what
// the clusters say of themselves; one that ends is told of.
func TestManyClusters(t *testing.T) {
	members := filepath.Join(t.TempDir(), "clusters")
	if err := os.WriteFile(members, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(t, t.TempDir(), fmt.Sprintf("bus: {leafNodes: {listen: \"127.0.0.1:0\", clusters: %q}}\n", members))
	o.Cluster = onePod(t)
	hub := start(t, o)
	spokes := map[string]*running{"eu-1": startSpoke(t, "eu-1", hub.HubURL(), members), "us-1": startSpoke(t, "us-1", hub.HubURL(), members)}
	for name, s := range spokes {
		a := alert.Alert{ID: "1", Time: time.Now(), Rule: "Shell in " + name, Source: "syscall", Priority: alert.Critical, Output: "a shell", Entities: []alert.Entity{{Kind: alert.Pod, Name: "shop/web-0"}}}
		if err := s.keep(t.Context(), []alert.Alert{a}); err != nil {
			t.Fatal(err)
		}
	}
	for name := range spokes {
		hub.until("/api/v1/alerts?cluster="+name, "Shell in "+name, `"cluster":"`+name+`"`)
		hub.until("/api/v1/incidents?cluster="+name, "Shell in "+name)
		_, body := hub.page("/api/v1/incidents?cluster=" + name)
		for other := range spokes {
			if other != name && strings.Contains(body, "Shell in "+other) {
				t.Errorf("incidents of %s have an alert of %s", name, other)
			}
		}
	}
	hub.until("/api/v1/clusters", `"name":"eu-1"`, `"name":"us-1"`, `"version":"test"`, "checked")
	hub.until("/metrics", `kubeguardian_cluster_alerts_received_total{reporting="eu-1"} 1`, `kubeguardian_cluster_connected{reporting="us-1"} 1`)
	spokes["eu-1"].until("/metrics", "kubeguardian_hub_connected 1", "kubeguardian_hub_alerts_sent_total 1", "kubeguardian_hub_alerts_waiting 0", "kubeguardian_hub_lag_seconds 0")
	spokes["eu-1"].until("/health", "It has the alerts of this cluster.")
	hub.until("/metrics", `kubeguardian_cluster_silent{reporting="us-1"} 0`, `kubeguardian_cluster_lag_seconds{reporting="eu-1"} 0`)
	if err := spokes["us-1"].stop(); err != nil {
		t.Fatal(err)
	}
	hub.until("/api/v1/alerts?text=silent", "Cluster is silent", "us-1 was stopped")
	hub.until("/health", "nobody watches these: us-1")
	hub.until("/metrics", `kubeguardian_cluster_silent{reporting="us-1"} 1`, `kubeguardian_cluster_silent{reporting="eu-1"} 0`)

	// A cluster whose hub is gone says so, and since when its alerts wait.
	hub.clusters.Close()
	a := alert.Alert{ID: "late", Time: time.Now(), Rule: "Shell", Source: "syscall", Priority: alert.Critical, Output: "a shell"}
	if err := spokes["eu-1"].keep(t.Context(), []alert.Alert{a}); err != nil {
		t.Fatal(err)
	}
	spokes["eu-1"].until("/metrics", "kubeguardian_hub_connected 0", "kubeguardian_hub_alerts_waiting 1")
	spokes["eu-1"].until("/health", "The hub does not take alerts, and alerts since "+a.Time.UTC().Format(time.RFC3339)+" wait")
}

// TestHubRefusals: what is wrong with files is said at the start.
func TestHubRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("eu-1 no-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for extra, want := range map[string]string{
		fmt.Sprintf("bus: {leafNodes: {listen: \"127.0.0.1:0\", clusters: %q}}\n", file):      file + ":1: want the public key of a cluster",
		fmt.Sprintf("bus: {hub: {url: \"tls://hub.example.org:7422\", keyFile: %q}}\n", file): "kubeguardian setup cluster-key",
	} {
		s, err := New(t.Context(), options(t, t.TempDir(), extra))
		if err == nil {
			s.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", extra, err)
		}
	}
}
