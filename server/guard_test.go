package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDrain expects that a server that was told to end first says so, and
// answers on meanwhile.
func TestDrain(t *testing.T) {
	opts := options(t, t.TempDir(), "")
	opts.Config.Webhook.Drain = 5 * time.Second
	r := start(t, opts)
	if code, body := r.page("/healthz"); code != http.StatusOK {
		t.Fatalf("healthz: %d %s", code, body)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, body := r.page("/readyz"); strings.Contains(body, "the server ends") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not say that it ends")
		}
	}
	code, body := r.webhook("/admit", review("ClusterRoleBinding", "clusterrolebindings", adminBinding))
	if code != http.StatusOK || !strings.Contains(body, `"allowed":true`) {
		t.Errorf("review while it ends: %d %s", code, body)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestClientAuthority expects a start to fail when it is not known who may call.
func TestClientAuthority(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.crt")
	start := func() error {
		opts := options(t, t.TempDir(), "")
		opts.Config.Webhook.ClientCAFile, opts.Config.Webhook.ClientNames = file, []string{"kube-apiserver"}
		s, err := New(t.Context(), opts)
		if err == nil {
			err = s.Stop()
		}
		return err
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "read webhook.clientCAFile: open "+file) {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), file+": read authority of client certificates") {
		t.Errorf("with a file of text: %v", err)
	}
}
