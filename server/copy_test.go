package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/bus"
	"github.com/kubeguardian/kubeguardian/bus/hub"
	"github.com/kubeguardian/kubeguardian/bus/spool"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/store/postgrestest"
)

// leave has an agent leave alerts on the bus of a server that does not run.
func leave(t *testing.T, dir string, n int) {
	t.Helper()
	h, err := hub.Start(hub.Options{Listen: "127.0.0.1:0", Dir: dir, Bytes: 1 << 30, Sync: time.Second, Log: slog.New(slog.DiscardHandler), Node: func(context.Context, string) (string, error) { return "n1", nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Stop()
	sp, err := spool.Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer sp.Close()
	nc, err := (bus.Endpoint{URL: "nats://" + h.Addr().String(), TokenFile: write(t, "0123456789abcdef")}).ConnectAgent("n1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	p := bus.NewPublisher("n1", sp, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, nc) }()
	for i := range n {
		one := alert.Alert{ID: fmt.Sprint("left-", i), Time: time.Now(), Rule: "Left", Source: event.Syscall, Hostname: "n1", Priority: alert.Notice}
		if err := p.Publish(&one); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the bus has all", func() (bool, string) { s := p.Stats().Sent; return s == uint64(n), fmt.Sprint(s) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestFromOneToSeveral: what a server has in a file is in PostgreSQL after a copy, for
// which it must not run, and a server there stores what was left on the bus.
func TestFromOneToSeveral(t *testing.T) {
	_, url := postgrestest.ForTest(t)
	dir := t.TempDir()
	common := fmt.Sprintf("detection: {heartbeat: 0s, cooldown: [{within: 0s}]}\nbus: {listen: \"127.0.0.1:0\", hostTokens: %q}\n", write(t, "n1 0123456789abcdef\n"))
	opts := options(t, dir, common+"database: {urlFile: "+write(t, url)+"}\n")
	refused := func(want string) {
		t.Helper()
		if _, err := CopyDatabase(t.Context(), opts.Config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("have %v, want %q", err, want)
		}
	}
	refused("no such file")
	one := options(t, dir, common)
	r := start(t, one)
	if _, err := CopyDatabase(t.Context(), one.Config); err == nil || !strings.Contains(err.Error(), "database.urlFile is not set") {
		t.Error(err)
	}
	if code, body := r.webhook("/audit", manyEvents(t, 0)); code != http.StatusOK {
		t.Fatalf("audit: %d %s", code, body)
	}
	before := r.count()
	refused("another server uses it")
	eventually(t, "the bus is prepared", func() (bool, string) {
		_, err := os.Stat(filepath.Join(dir, "bus", "jetstream", "$G", "streams", bus.AlertStream))
		return err == nil, ""
	})
	if err := errors.Join(r.stop(), r.Stop()); err != nil {
		t.Fatal(err)
	}
	const left = 20
	leave(t, filepath.Join(dir, "bus"), left)
	rows, err := CopyDatabase(t.Context(), opts.Config)
	if err != nil || rows["alerts"] != before {
		t.Fatalf("%d of %d alerts are copied, %v", rows["alerts"], before, err)
	}
	refused("there are records in it already")
	r = start(t, opts)
	eventually(t, "all is stored", func() (bool, string) { n := r.count(); return n == before+left, fmt.Sprint(n) })
	if n := r.alerts(); n == 0 {
		t.Error("no alerts are shown")
	}
}
