//go:build ha

package install

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// machine is this machine's address, as the node and its pods see it.
const machine = "10.99.0.1"

// A signer is a certificate authority that no system knows.
type signer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{t: t}
	s.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "authority of database and bus"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	s.pem, s.key = s.sign(s.cert)
	return s
}

// sign returns a certificate in PEM, signed by the authority or, when there is no
// key of it yet, by itself.
func (s *signer) sign(c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent := s.key
	if parent == nil {
		parent = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, s.cert, key.Public(), parent)
	if err != nil {
		s.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

// server returns a certificate for this machine and its key, in PEM.
func (s *signer) server() (cert, key []byte) {
	s.t.Helper()
	cert, private := s.sign(&x509.Certificate{Subject: pkix.Name{CommonName: machine}, IPAddresses: []net.IP{net.ParseIP(machine)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		s.t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// startPostgres starts an empty PostgreSQL that is reached by TLS and with a
// password alone, and returns the URL of its database, whose authority is in a file
// of a pod.
func startPostgres(t *testing.T, s *signer, caFile string) string {
	t.Helper()
	homes, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(homes) == 0 {
		t.Fatalf("no PostgreSQL found (%v): install it (make postgres)", err)
	}
	bin := filepath.Dir(homes[len(homes)-1])
	dir, owner := ownedDir(t)
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: owner}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	const password = "a pass/word"
	cert, key := s.server()
	for name, data := range map[string][]byte{"password": []byte(password), "server.crt": cert, "server.key": key,
		"hba.conf": []byte("local all all trust\nhostssl all all all scram-sha-256\n")} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	data, port := filepath.Join(dir, "data"), freePort(t)
	run("initdb", "-D", data, "-U", "kubeguardian", "--pwfile="+filepath.Join(dir, "password"), "-E", "UTF8", "--no-locale", "--no-sync")
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "listen_addresses="+machine, "-c", "port="+port, "-c", "unix_socket_directories="+dir,
		"-c", "hba_file="+filepath.Join(dir, "hba.conf"), "-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(dir, "server.crt"), "-c", "ssl_key_file="+filepath.Join(dir, "server.key"))
	log, err := os.Create(filepath.Join(t.TempDir(), "postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // may have ended
		_ = cmd.Wait()
		log.Close()
	})
	for begun := time.Now(); exec.Command(filepath.Join(bin, "pg_isready"), "-q", "-h", dir, "-p", port).Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Since(begun) > 2*time.Minute {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("PostgreSQL does not answer:\n%s", said)
		}
	}
	run("psql", "-q", "-h", dir, "-p", port, "-U", "kubeguardian", "-d", "postgres", "-c", "CREATE DATABASE kubeguardian")
	return fmt.Sprintf("postgresql://kubeguardian:a%%20pass%%2Fword@%s:%s/kubeguardian?sslmode=verify-full&sslrootcert=%s", machine, port, caFile)
}

// ownedDir makes a folder of the user postgres: PostgreSQL refuses to run as root.
func ownedDir(t *testing.T) (string, *syscall.Credential) {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 31)
	gid, _ := strconv.ParseUint(u.Gid, 10, 31)
	dir := t.TempDir()
	for parent := filepath.Dir(dir); strings.HasPrefix(parent, os.TempDir()+"/"); parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o711); err != nil { // to pass through, not to list
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", machine+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// A natsServer is a NATS server in which KubeGuardian has an account.
type natsServer struct {
	url           string
	server, agent []byte // credentials files
}

// startNATS starts a NATS server with JetStream, reached by TLS, and with JWTs of an
// account alone. Agents may do what docs/bus.md has.
func startNATS(t *testing.T, s *signer) natsServer {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	pair := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		key, err := make()
		must(err)
		public, err := key.PublicKey()
		must(err)
		return key, public
	}
	operatorKey, operatorID := pair(nkeys.CreateOperator)
	_, systemID := pair(nkeys.CreateAccount)
	accountKey, accountID := pair(nkeys.CreateAccount)
	operator := jwt.NewOperatorClaims(operatorID)
	operator.SystemAccount = systemID
	accounts := &natsd.MemAccResolver{}
	for id, keeps := range map[string]bool{systemID: false, accountID: true} {
		account := jwt.NewAccountClaims(id)
		if keeps {
			account.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: 4 << 30, MemoryStorage: 64 << 20, Streams: 8, Consumer: 64}
		}
		text, err := account.Encode(operatorKey)
		must(err)
		must(accounts.Store(id, text))
	}
	credentials := func(set func(*jwt.UserClaims)) []byte {
		key, id := pair(nkeys.CreateUser)
		claims := jwt.NewUserClaims(id)
		set(claims)
		text, err := claims.Encode(accountKey)
		must(err)
		seed, err := key.Seed()
		must(err)
		file, err := jwt.FormatUserConfig(text, seed)
		must(err)
		return file
	}
	cert, key := s.server()
	pair509, err := tls.X509KeyPair(cert, key)
	must(err)
	server, err := natsd.NewServer(&natsd.Options{
		Host: machine, Port: natsd.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 8 << 30,
		TLS: true, TLSTimeout: 10, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair509}, MinVersion: tls.VersionTLS13},
		TrustedOperators: []*jwt.OperatorClaims{operator}, AccountResolver: accounts, SystemAccount: systemID,
	})
	must(err)
	server.Start()
	t.Cleanup(func() { server.Shutdown(); server.WaitForShutdown() })
	if !server.ReadyForConnections(2 * time.Minute) {
		t.Fatal("NATS does not answer")
	}
	return natsServer{
		url:    "tls://" + server.Addr().String(),
		server: credentials(func(*jwt.UserClaims) {}),
		agent: credentials(func(c *jwt.UserClaims) {
			c.Permissions.Pub.Allow = jwt.StringList{"kubeguardian.alerts.>", "kubeguardian.states.>", "$JS.API.DIRECT.GET.KUBEGUARDIAN_RULES.>"}
			c.Permissions.Sub.Allow = jwt.StringList{"_INBOX_AGENT.>", "kubeguardian.rules.syscall"}
		}),
	}
}

// stay waits for a while, or for the end of the test.
func stay(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
