package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus/leaf"
	"github.com/kubeguardian/kubeguardian/health"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
	"github.com/kubeguardian/kubeguardian/store/retention"
)

// eventually waits until something is so, as long as what is on the way may take:
// a minute after the last progress, which a string tells.
func eventually(t *testing.T, what string, is func() (done bool, progress string)) {
	t.Helper()
	last := ""
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		done, progress := is()
		switch {
		case done:
			return
		case progress != last:
			last, deadline = progress, time.Now().Add(time.Minute)
		case time.Now().After(deadline):
			t.Fatalf("not within a minute: %s; the last was %s", what, progress)
		}
	}
}

// tells stores alerts and waits until all are told of them.
func (r *running) tells(alerts []alert.Alert) {
	r.t.Helper()
	for i := range alerts {
		alerts[i].Priority = alert.Notice // which opens no incident that pages
	}
	added, err := r.store.AddAlerts(r.t.Context(), alerts)
	if err != nil || len(added) != len(alerts) {
		r.t.Fatal(len(added), err)
	}
	r.announce(added)
	eventually(r.t, "all are told", func() (bool, string) {
		last, err := r.store.LastAlert(r.t.Context())
		notified, joined, _, err2 := r.store.Notified(r.t.Context())
		if err := errors.Join(err, err2); err != nil {
			r.t.Fatal(err)
		}
		return min(notified, joined) >= last, fmt.Sprint(notified, " ", joined)
	})
}

// TestRetention: of more alerts than are to be kept those go that came first,
// whatever their age says, once all are told of; and it is said.
func TestRetention(t *testing.T) {
	r := start(t, options(t, t.TempDir(), "retention: {records: 1000, maxMiB: 64}\ndetection: {heartbeat: 0s}\n"))
	alerts := alertsOf(0, 1500)
	for i := range 10 { // they are late, and came last
		alerts[1490+i].Time = time.Now().Add(-1000 * time.Hour)
	}
	r.tells(alerts)
	for _, want := range []int{500, 0} {
		report, err := r.retainOnce(t.Context(), time.Now())
		if err != nil || report.Removed[retention.Cause{Kind: retention.Alerts, Limit: retention.Number}] != want || report.Removed[retention.Cause{Kind: retention.Alerts, Limit: retention.Age}] != 0 {
			t.Errorf("removed %v, %v; want %d", report.Removed, err, want)
		}
	}
	for i, want := range map[int]bool{499: false, 500: true, 1499: true} {
		if _, found, err := r.store.Alert(t.Context(), alerts[i].ID); err != nil || found != want {
			t.Errorf("alert %d is there: %v, want %v; %v", i, found, want, err)
		}
	}
	expect(t, r.checked(), "Database", health.OK, " MiB of 64 MiB that it may, and its oldest alert came by ")
	expect(t, r.checked(), "Database", health.OK, " 500 for their number and ")
	if _, metrics := r.page("/metrics"); !strings.Contains(metrics, "kubeguardian_retention_removed_total{limit=\"number\",record=\"alerts\"} 500\n") ||
		!strings.Contains(metrics, "kubeguardian_retention_held_alerts 0\n") || strings.Contains(metrics, "kubeguardian_database_size_bytes 0\n") {
		t.Errorf("metrics do not say what was removed:\n%s", metrics)
	}
}

// TestRetentionWaitsForTheHub: what the hub does not have stays, and it is said.
func TestRetentionWaitsForTheHub(t *testing.T) {
	secret, _, err := leaf.NewKey("test")
	if err != nil {
		t.Fatal(err)
	}
	key := write(t, string(secret))
	r := start(t, options(t, t.TempDir(), "retention: {records: 1000}\nbus: {hub: {url: \"nats://"+free(t)+"\", keyFile: "+key+"}}\n"))
	r.tells(alertsOf(0, 1200))
	report, err := r.retainOnce(t.Context(), time.Now())
	if err != nil || report.Sum() != 0 || report.Held != 200 || report.For != "hub" {
		t.Errorf("report %+v, %v", report, err)
	}
	expect(t, r.checked(), "Database", health.Bad, "200 alerts are beyond what is to be kept, and stay until the hub has them.")
}

// manyEvents returns audit events of which each raises an alert of its own.
func manyEvents(t *testing.T, batch int) string {
	var items []string
	one := eventList(t)
	one = one[strings.Index(one, "[")+1 : strings.LastIndex(one, "]")]
	for i := range 100 {
		items = append(items, strings.ReplaceAll(one, `"auditID":"`, fmt.Sprintf(`"auditID":"%d-%d-`, batch, i)))
	}
	return `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[` + strings.Join(items, ",") + `]}`
}

// count returns how many alerts there are.
func (r *running) count() int {
	r.t.Helper()
	c, err := r.store.Counts(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return c.Alerts
}

// TestFullDisk: on a full disk nothing is acknowledged that is not stored, it is said
// since when, and once there is space all goes on by itself.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		if os.Getenv("KUBEGUARDIAN_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skipf("a file system of its own needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r := start(t, options(t, dir, "detection: {heartbeat: 0s, cooldown: [{within: 0s}]}\n"))
	batch, code, body := 0, http.StatusOK, ""
	each, before := 0, 0
	for ; code == http.StatusOK; batch++ {
		if batch > 1000 {
			t.Fatal("the disk does not get full")
		}
		if code, body = r.webhook("/audit", manyEvents(t, batch)); code == http.StatusOK {
			if each = r.count() - before; each == 0 {
				t.Fatal("no alerts")
			}
			before += each
		}
	}
	refused := batch - 1
	t.Logf("after %d alerts: %d %s", before, code, body)
	if code != http.StatusServiceUnavailable {
		t.Errorf("audit on a full disk: %d %s, want 503", code, body)
	}
	if n := r.count(); n < before || n >= before+each { // of a batch that is refused there may be a part
		t.Errorf("%d alerts are stored, %d were acknowledged", n, before)
	}
	year := time.Now().UTC().Format("2006-")
	expect(t, r.checked(), "Database", health.Bad, "Nothing can be stored since "+year)
	expect(t, r.checked(), "Database", health.Bad, "free some space")
	if code, _ := r.page("/api/v1/alerts"); code != http.StatusOK {
		t.Errorf("alerts are not shown: %d", code)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	r.recovers()
	if code, body := r.webhook("/audit", manyEvents(t, refused)); code != http.StatusOK || r.count() != before+each {
		t.Errorf("with space again: %d %s, %d alerts, want %d", code, body, r.count(), before+each)
	}
	if err := errors.Join(r.stop(), r.Stop()); err != nil {
		t.Fatal(err)
	}
	r = start(t, options(t, dir, ""))
	if n := r.count(); n != before+each {
		t.Errorf("%d alerts after a restart, want %d", n, before+each)
	}
}

// recovers waits until the database is in order, without anything that is sent.
func (r *running) recovers() {
	r.t.Helper()
	eventually(r.t, "the database is in order", func() (bool, string) {
		c := r.checked()["Database"]
		return c.State == health.OK, c.Detail
	})
}

// TestDatabaseAway: while PostgreSQL is away the same holds, whether it has ended or
// answers no more.
func TestDatabaseAway(t *testing.T) {
	for name, away := range map[string]struct {
		begin, end func(*postgrestest.Server, context.Context) error
	}{
		"ended": {
			func(s *postgrestest.Server, _ context.Context) error { return s.Kill() },
			(*postgrestest.Server).Run,
		},
		"hangs": {
			func(s *postgrestest.Server, _ context.Context) error { return s.Freeze() },
			func(s *postgrestest.Server, _ context.Context) error { return s.Thaw() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "hangs" && testing.Short() {
				t.Skip("an answer is waited for, for 20 s")
			}
			t.Parallel() // it waits for long
			server, url := postgrestest.ForTest(t)
			r := start(t, options(t, t.TempDir(), "detection: {heartbeat: 0s, cooldown: [{within: 0s}]}\ndatabase: {urlFile: "+write(t, url)+"}\n"))
			if code, body := r.webhook("/audit", manyEvents(t, 0)); code != http.StatusOK {
				t.Fatalf("audit: %d %s", code, body)
			}
			before := r.count()
			if err := away.begin(server, t.Context()); err != nil {
				t.Fatal(err)
			}
			if code, body := r.webhook("/audit", manyEvents(t, 1)); code != http.StatusServiceUnavailable {
				t.Errorf("audit without a database: %d %s, want 503", code, body)
			}
			year := time.Now().UTC().Format("2006-")
			expect(t, r.checked(), "Database", health.Bad, "Nothing can be stored since "+year)
			if _, metrics := r.page("/metrics"); strings.Contains(metrics, "kubeguardian_store_failures_total 0\n") {
				t.Error("no metric says so")
			}
			if err := away.end(server, context.WithoutCancel(t.Context())); err != nil {
				t.Fatal(err)
			}
			r.recovers()
			if n := r.count(); n != before {
				t.Errorf("%d alerts are stored, %d were acknowledged", n, before)
			}
			if code, body := r.webhook("/audit", manyEvents(t, 1)); code != http.StatusOK || r.count() != 2*before {
				t.Errorf("with the database again: %d %s, %d alerts, want %d", code, body, r.count(), 2*before)
			}
		})
	}
}
