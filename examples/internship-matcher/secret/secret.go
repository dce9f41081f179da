// Package secret makes what the application needs and must not stand in any
// repository: identities, keys that sign logins, passwords. It is for clusters
// to try things in; elsewhere, a store of secrets and an authority of your own
// take its place.
package secret

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/token"
)

// Lifetime is how long the identities last, and the authority behind them.
const Lifetime = 24 * time.Hour

// PasswordKey is the key of a Secret under which a password is.
const PasswordKey = "password"

// Make makes all Secrets anew: their data by key, by their name. The names are
// those that the manifests use; namespace is where the services are.
func Make(namespace string) (map[string]map[string]string, error) {
	dir, err := os.MkdirTemp("", "secrets-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	m := maker{dir: dir, secrets: map[string]map[string]string{}}
	if err := m.identities(namespace); err != nil {
		return nil, fmt.Errorf("make identities: %w", err)
	}
	if err := m.tokens(); err != nil {
		return nil, fmt.Errorf("make keys of logins: %w", err)
	}
	for _, service := range []string{"auth", "offer", "application"} {
		m.secrets[service+"-db"] = map[string]string{PasswordKey: rand.Text()}
	}
	m.secrets["backup"] = map[string]string{PasswordKey: rand.Text(), "repository": "rest:http://restic-server.backup:8000/"}
	return m.secrets, nil
}

type maker struct {
	dir     string
	secrets map[string]map[string]string
}

// identities makes one for each service and each database, and the certificate
// of the public name.
func (m *maker) identities(namespace string) error {
	authority, err := identity.NewAuthority()
	if err != nil {
		return err
	}
	issue := func(secret, name string, hosts ...string) error {
		dir := filepath.Join(m.dir, secret)
		if err := authority.Issue(dir, name, Lifetime, hosts...); err != nil {
			return err
		}
		return m.read(secret, dir, identity.CertificateFile, identity.KeyFile, identity.AuthorityFile)
	}
	for _, service := range []string{"auth", "offer", "application", "gateway"} {
		if err := issue("identity-"+service, service); err != nil {
			return err
		}
	}
	for _, database := range []string{"auth-db", "offer-db", "application-db"} {
		if err := issue("identity-"+database, database, database, database+"."+namespace, database+"."+namespace+".svc"); err != nil {
			return err
		}
	}
	return issue("gateway-tls", "gateway", "internships.example.com")
}

// tokens makes the keys of logins: together, and each half by itself.
func (m *maker) tokens() error {
	if err := token.Generate(m.dir); err != nil {
		return err
	}
	if err := m.read("token", m.dir, token.PrivateFile, token.PublicFile); err != nil {
		return err
	}
	if err := m.read("token-signing-key", m.dir, token.PrivateFile); err != nil {
		return err
	}
	return m.read("token-public-key", m.dir, token.PublicFile)
}

// read makes a Secret of files.
func (m *maker) read(name, dir string, files ...string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	m.secrets[name] = map[string]string{}
	for _, file := range files {
		text, err := root.ReadFile(file)
		if err != nil {
			return err
		}
		m.secrets[name][file] = string(text)
	}
	return nil
}
