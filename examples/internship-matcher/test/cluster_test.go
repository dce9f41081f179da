//go:build failover

package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/ha"
	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// A stranger's way to a server of the cluster: libpq's names of parameters.
type way map[string]string

func (w way) connect(ctx context.Context) error {
	var dsn strings.Builder
	for key, value := range w {
		fmt.Fprintf(&dsn, "%s='%s' ", key, value)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.Ping(ctx)
}

// with returns the way with other parameters.
func (w way) with(parameters ...string) way {
	changed := way{}
	for key, value := range w {
		changed[key] = value
	}
	for i := 0; i < len(parameters); i += 2 {
		changed[parameters[i]] = parameters[i+1]
	}
	return changed
}

// shows are the parameters of a client that has an identity.
func shows(dir string) []string {
	return []string{"sslcert", filepath.Join(dir, identity.CertificateFile), "sslkey", filepath.Join(dir, identity.KeyFile)}
}

// TestClusterTrustsNobody tries to get into the nodes and through Pgpool-II
// without what it takes, and replaces all certificates while they are in use.
func TestClusterTrustsNobody(t *testing.T) {
	cluster := startCluster(t)
	ctx := within(t, 3*time.Minute)
	offer, err := cluster.Create(ctx, "offer", "")
	if err != nil {
		t.Fatal(err)
	}
	password, err := os.ReadFile(offer.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	node := cluster.Config("node1")
	stranger := t.TempDir()
	other, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Issue(stranger, "repmgr", time.Hour); err != nil {
		t.Fatal(err)
	}

	toPool := way{"host": offer.Host, "port": fmt.Sprint(offer.Port), "dbname": "offer", "user": "offer", "password": string(password), "sslmode": "verify-full", "sslrootcert": offer.RootCertFile}
	toNode := toPool.with("host", node.Host, "port", fmt.Sprint(node.Port))
	asSuperuser := toNode.with("user", "repmgr", "dbname", "postgres")
	eventually(t, func() error { return toPool.connect(ctx) }) // Pgpool-II has found the primary

	tests := map[string]struct {
		way  way
		want string // of the error; none for success
	}{
		"client through Pgpool-II":         {toPool, ""},
		"wrong password":                   {toPool.with("password", "wrong"), "authentication failed"},
		"no TLS to Pgpool-II":              {toPool.with("sslmode", "disable"), "authentication failed"},
		"another authority":                {toPool.with("sslrootcert", filepath.Join(stranger, identity.AuthorityFile)), "unknown authority"},
		"superuser through Pgpool-II":      {toPool.with("user", "repmgr", "dbname", "postgres"), "authentication failed"},
		"watcher through Pgpool-II":        {toPool.with("user", "pool", "dbname", "postgres"), "authentication failed"},
		"node":                             {asSuperuser.with(shows(node.IdentityDir)...), ""},
		"no TLS to a node":                 {toNode.with("sslmode", "disable"), "28000"},
		"password but no certificate":      {toNode, "28000"},
		"superuser without a certificate":  {asSuperuser, "28000"},
		"superuser with another's":         {asSuperuser.with(shows(cluster.Identity("pool"))...), "28000"},
		"superuser with a stranger's":      {asSuperuser.with(shows(stranger)...), "unknown certificate authority"},
		"Pgpool-II where it need not be":   {asSuperuser.with("user", "pool", "dbname", "offer").with(shows(cluster.Identity("pool"))...), "SASL"},
		"Pgpool-II in a database for that": {asSuperuser.with("user", "pool").with(shows(cluster.Identity("pool"))...), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			eventually(t, func() error { // Pgpool-II drops connections while it takes nodes back
				err := test.way.connect(ctx)
				if err == nil && test.want != "" {
					t.Error("it is let in")
				}
				if err != nil && (test.want == "" || !strings.Contains(err.Error(), test.want)) {
					return fmt.Errorf("got %w, want %q", err, test.want)
				}
				return nil
			})
		})
	}
	t.Run("supervisor", func(t *testing.T) {
		client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		res, err := client.Get(fmt.Sprintf("https://%s:%d/status", node.Host, node.StatusPort))
		if err == nil {
			res.Body.Close()
			t.Error("it answers who shows no certificate")
		}
	})
	t.Run("rotation", func(t *testing.T) { rotate(ctx, t, cluster, toPool, toNode) })
}

// rotate replaces the certificates of a node and of Pgpool-II.
func rotate(ctx context.Context, t *testing.T, cluster *ha.Local, toPool, toNode way) {
	for name, to := range map[string]way{"node1": toNode, "pool": toPool} {
		old := serial(ctx, t, to)
		if err := cluster.Issue(name); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if serial(ctx, t, to) == old {
				return fmt.Errorf("%s still shows its old certificate", name)
			}
			return nil
		})
	}
	eventually(t, func() error { return toPool.connect(ctx) })
	if err := cluster.Healthy(ctx); err != nil {
		t.Error(err)
	}
}

// serial returns the serial number of the certificate that a server shows, none
// while it shows none.
func serial(ctx context.Context, t *testing.T, to way) (number string) {
	t.Helper()
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s user=%s sslmode=require connect_timeout=2", to["host"], to["port"], to["dbname"], to["user"]))
	if err != nil {
		t.Fatal(err)
	}
	config.TLSConfig.VerifyPeerCertificate = func(certificates [][]byte, _ [][]*x509.Certificate) error {
		leaf, err := x509.ParseCertificate(certificates[0])
		if err == nil {
			number = leaf.SerialNumber.String()
		}
		return err
	}
	if conn, err := pgx.ConnectConfig(ctx, config); err == nil {
		conn.Close(ctx)
	}
	return number
}

// eventually waits for something, 30 seconds at most.
func eventually(t *testing.T, done func() error) {
	t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
