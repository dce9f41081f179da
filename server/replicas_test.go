package server

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

// alertsOf returns alerts of which each is a second older than the next.
func alertsOf(from, to int) (out []alert.Alert) {
	for i := from; i < to; i++ {
		out = append(out, alert.Alert{ID: fmt.Sprint("alert-", i), Time: time.Now().Add(time.Duration(i-to) * time.Second).UTC(), Rule: "Rule", Cluster: "test"})
	}
	return out
}

// TestSharedDatabase: servers with a database of their own do not share a data
// directory, servers on one PostgreSQL may; and what is wrong with the URL is said
// without it.
func TestSharedDatabase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	write := func(url string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(url), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shared := "database: {urlFile: " + file + "}\n"
	for url, want := range map[string]string{
		"mysql://user:s3cret@host/db":                "read database.urlFile: " + file,
		"postgresql://user:s3cret@host/db?sslmode=x": "sslmode",
		"postgresql://user:s3/cret@host/db":          "open database: its URL",
	} {
		write(url)
		s, err := New(t.Context(), options(t, t.TempDir(), shared))
		if err == nil {
			s.Stop()
			t.Fatalf("%s was opened", url)
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "s3") {
			t.Errorf("have %v, want %q and no password", err, want)
		}
	}
	_, url := postgrestest.ForTest(t)
	write(url)
	dir := t.TempDir()
	var two []*Server
	for range 2 {
		s, err := New(t.Context(), options(t, dir, shared))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		two = append(two, s)
	}
	if two[0].leads() || two[1].leads() {
		t.Error("somebody leads who was not elected")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := two[0].store.AddAlerts(ctx, alertsOf(0, 3)); err != nil {
		t.Fatal(err)
	}
	if seen, _, err := two[1].store.AlertsAfter(ctx, 0, alert.Query{}); err != nil || len(seen) != 3 {
		t.Errorf("the other sees %d alerts, %v", len(seen), err)
	}
}

// TestReplicasBehindOneService: what one of two servers on a database stores, the live
// pages of the other show.
func TestReplicasBehindOneService(t *testing.T) {
	_, url := postgrestest.ForTest(t)
	shared := "database: {urlFile: " + write(t, url) + "}\n"
	a, b := start(t, options(t, t.TempDir(), shared)), start(t, options(t, t.TempDir(), shared))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", b.WebURL()+"/api/v1/alerts/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+b.token)
	stream, err := http.DefaultClient.Do(r)
	if err != nil || stream.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", stream, err)
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && lines.Text() != "" { // the first one says that the stream is there
	}
	if code, body := a.webhook("/audit", eventList(t)); code != http.StatusOK {
		t.Fatalf("audit: %d %s", code, body)
	}
	shown := false
	for !shown && lines.Scan() {
		shown = strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), "Secrets listed")
	}
	if !shown {
		t.Fatalf("the other replica's live pages do not show an alert: %v", lines.Err())
	}
}
