//go:build failover

package test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/ha"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/local"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/traffic"
)

// startCluster starts a highly available PostgreSQL. It needs root, for network
// namespaces, and the packages that make postgres installs.
func startCluster(t *testing.T) *ha.Local {
	t.Helper()
	dir, err := os.MkdirTemp("", "internship-matcher-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", dir, "../cmd/pgnode", "../cmd/pgfront").CombinedOutput(); err != nil {
		t.Fatalf("build pgnode and pgfront: %v: %s", err, out)
	}
	cluster, err := ha.StartLocal(t.Context(), dir, dir, "auth", "offer", "application")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // also when no application has taken it over
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			return
		}
		for _, name := range append(cluster.Nodes(), "pool") {
			data, _ := os.ReadFile(cluster.Log(name)) // what there is
			t.Logf("%s:\n%s", name, data[max(0, len(data)-8000):])
		}
	})
	return cluster
}

// A ledger knows which writes were acknowledged.
type ledger struct {
	mu   sync.Mutex
	ids  []string
	last time.Time // when the newest acknowledged write was begun
}

func (l *ledger) add(id string, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = append(l.ids, id)
	if begun.After(l.last) {
		l.last = begun
	}
}

// since waits for a write that was begun after a moment and acknowledged.
func (l *ledger) since(ctx context.Context, moment time.Time) error {
	for {
		l.mu.Lock()
		done := l.last.After(moment)
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no write was acknowledged since %s", moment)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// write makes offers until the context ends.
func (l *ledger) write(ctx context.Context, c traffic.Client) {
	for ctx.Err() == nil {
		var offer traffic.Offer
		begun, key := time.Now(), uuid.NewString()
		if err := c.Again(ctx, http.MethodPost, "/v1/offers", newContent("Ledger"), &offer, "Idempotency-Key", key); err == nil {
			l.add(offer.ID, begun)
		}
	}
}

// watch looks for two nodes that take writes, until the context ends.
func watch(ctx context.Context, t *testing.T, cluster *ha.Local) {
	for ctx.Err() == nil {
		var primaries []string
		for _, name := range cluster.Nodes() {
			if cluster.Status(ctx, name).Primary {
				primaries = append(primaries, name)
			}
		}
		if len(primaries) > 1 {
			t.Errorf("more than one node takes writes: %v", primaries)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TestFailover takes away each part of the database in turn, under load. It is for
// make failover: it takes minutes and wants the machine for itself.
func TestFailover(t *testing.T) {
	cluster := startCluster(t)
	app, _ := start(t, local.Options{WAF: "off", Rate: 10_000, Databases: cluster})
	ctx := within(t, 8*time.Minute)
	company := account(t, app, "company")

	load, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	book := &ledger{}
	for range 4 {
		wg.Go(func() { book.write(load, company) })
	}
	wg.Go(func() { watch(load, t, cluster) })
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			stop()
			wg.Wait()
			t.Fatalf("%s: %v", what, err)
		}
	}
	resume := func(what string) {
		t.Helper()
		moment := time.Now()
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second) // 30 are promised, to an idle machine
		defer cancel()
		must(what, book.since(ctx, moment))
		t.Logf("%s: writes after %s", what, time.Since(moment).Round(100*time.Millisecond))
	}
	healthy := func(old string) {
		t.Helper()
		moment := time.Now()
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		must("rejoin", cluster.Healthy(ctx))
		if cluster.Status(ctx, old).Primary {
			t.Errorf("%s is primary again, want a standby", old)
		}
		t.Logf("%s is a standby after %s", old, time.Since(moment).Round(100*time.Millisecond))
	}
	primary := func() string {
		t.Helper()
		name, err := cluster.Primary(ctx)
		must("primary", err)
		return name
	}

	resume("start")

	old := primary()
	must("kill", cluster.Kill(old))
	resume("primary " + old + " killed")
	must("start", cluster.StartNode(old))
	healthy(old)

	must("kill", cluster.Kill(old))
	resume("standby " + old + " killed")
	must("start", cluster.StartNode(old))
	healthy(old)

	must("kill", cluster.KillPool())
	must("start", cluster.StartPool())
	resume("Pgpool-II killed")

	old = primary()
	must("cut", cluster.Cut(ctx, old, true))
	resume("primary " + old + " cut off")
	must("mend", cluster.Cut(ctx, old, false))
	healthy(old)
	resume("primary " + old + " back")

	stop()
	wg.Wait()
	for _, id := range book.ids {
		if err := company.Again(ctx, http.MethodGet, "/v1/offers/"+id, nil, nil); err != nil {
			t.Errorf("an acknowledged write is lost: %v", err)
		}
	}
	t.Logf("%d acknowledged writes, all there", len(book.ids))
}
