// Package secrets searches this repository for credentials, as a scan does.
package secrets

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubeguardian/kubeguardian/evidence/repository"
)

// TestNoSecrets finds none but those that tests are made of. The history is
// longer than a scan searches.
func TestNoSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("searches all files of the repository")
	}
	tree, err := repository.Read(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range tree.Leaks {
		if !leak.Test {
			t.Errorf("%s: %s (commit %q)", leak.Place, leak.Rule, leak.Commit)
		}
	}
	for _, place := range tree.SecretFiles {
		t.Errorf("%s: a Secret with what it holds", place)
	}
	for _, left := range tree.Left {
		t.Errorf("not searched: %s", left)
	}
	t.Logf("%d files; history: %s", tree.Files, tree.History)
}

// TestKeyIsFound makes sure that the search sees something.
func TestKeyIsFound(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.MkdirAll(filepath.Join(dir, ".github"), 0o700); err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "server.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := repository.Read(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Leaks) != 1 || tree.Leaks[0].Test {
		t.Errorf("found %+v, want the private key", tree.Leaks)
	}
}
