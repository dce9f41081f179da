// Package ha runs one node of a PostgreSQL cluster that survives the loss of
// its primary: streaming replication to two standbys, one of which must have
// each commit; repmgr, which promotes a standby; and around both a supervisor
// that fences a primary which is cut off, and brings an old primary back as a
// standby. Pgpool-II, with a supervisor of its own, leads clients to whichever
// node is the primary.
//
// No commit that a client saw is lost, and no two nodes take writes, as long as
// one node fails at a time:
//
//   - A commit waits for one standby. A standby is promoted only where most nodes
//     are seen, none of them follows a primary, and it has most of what was
//     written. While none follows, no primary confirms anything.
//   - A primary that sees no other node stops within [fenceAfter]. The others
//     promote no standby before [promoteAfter] has passed.
//   - A node that was primary and went down does not become primary by itself
//     again before the others had the time to promote one of them.
//
// All connections between machines are TLS, with certificates of an authority
// of the cluster's own on both ends.
package ha

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/examples/internship-matcher/identity"
)

// Times, each long enough for the one before.
const (
	fenceAfter   = 6 * time.Second  // alone as a primary
	promoteAfter = 8 * time.Second  // without a primary
	followAfter  = 1 * time.Second  // a new primary, if repmgr did not see to it
	restartAfter = 12 * time.Second // when following does not succeed
	standInAfter = 10 * time.Second // without a primary, if repmgr has not promoted one
	grace        = 40 * time.Second // for others, before an old primary starts as one
)

// Superuser of replication, promotion and supervision, and its database. Only
// who has a node's certificate is let in.
const admin = "repmgr"

// The role of Pgpool-II itself, which may look how the nodes are.
const watcher = "pool"

// A Peer is another node.
type Peer struct {
	ID   int
	Name string
	Host string
}

// String writes a peer as [ReadPeers] reads it.
func (p Peer) String() string { return fmt.Sprintf("%d:%s:%s", p.ID, p.Name, p.Host) }

// A Config says which node this is.
type Config struct {
	Peer
	Listen      string            // addresses of the host to listen on, as PostgreSQL has them; "*" for all
	Port        int               // of PostgreSQL, the same on all nodes
	StatusPort  int               // of the supervisors, the same on all nodes
	Health      string            // address for probes, HTTP without TLS
	Dir         string            // for data; on a disk that keeps what it has confirmed
	RunDir      string            // for sockets and generated configuration
	IdentityDir string            // certificate of repmgr for this host, its key, and whom to trust
	Peers       []Peer            // the other nodes
	Databases   map[string]string // to make at first start: name, which is also the role's, and password file
	BinDir      string            // of PostgreSQL
}

func (c Config) data() string         { return filepath.Join(c.Dir, "data") }
func (c Config) hasData() bool        { return exists(filepath.Join(c.data(), "PG_VERSION")) }
func (c Config) repmgrConf() string   { return filepath.Join(c.RunDir, "repmgr.conf") }
func (c Config) postgresConf() string { return filepath.Join(c.RunDir, "postgresql.conf") }
func (c Config) hbaConf() string      { return filepath.Join(c.RunDir, "pg_hba.conf") }

func (c Config) identity(file string) string { return filepath.Join(c.IdentityDir, file) }

// conninfo is how a node is reached by the others. What is needed for TLS is in
// the environment: where repmgr tells a standby whom to follow, it would pass on
// the paths of the one to be followed.
func (c Config) conninfo(host, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s application_name=%s connect_timeout=2 tcp_user_timeout=5000 keepalives_idle=3 keepalives_interval=1 keepalives_count=3",
		host, c.Port, admin, database, c.Name)
}

// local is how the node reaches itself, over a socket that only its own user
// and root can use.
func (c Config) local(database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s connect_timeout=2", c.RunDir, c.Port, admin, database)
}

// ReadPeers reads nodes written as ID:NAME:HOST, separated by commas.
func ReadPeers(text string) ([]Peer, error) {
	var peers []Peer
	for part := range strings.SplitSeq(text, ",") {
		fields := strings.SplitN(part, ":", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("peers: %q is not ID:NAME:HOST", part)
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil || id < 1 {
			return nil, fmt.Errorf("peers: %q is not a positive number", fields[0])
		}
		peers = append(peers, Peer{id, fields[1], fields[2]})
	}
	return peers, nil
}

func writePeers(peers []Peer) string {
	var texts []string
	for _, p := range peers {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ",")
}

// Among makes this the node of a name, and the others its peers.
func (c *Config) Among(nodes []Peer, name string) error {
	c.Peers = nil
	for _, n := range nodes {
		if n.Name == name {
			c.Peer = n
		} else {
			c.Peers = append(c.Peers, n)
		}
	}
	if c.Name == "" {
		return fmt.Errorf("no node is named %q", name)
	}
	return nil
}

// write writes the configuration of the node. That of PostgreSQL is not in the
// data folder, where a copy of another node's would replace it.
func (c Config) write() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(c.repmgrConf(), []byte(c.repmgrText(program)), 0o600),
		os.WriteFile(c.postgresConf(), []byte(c.postgresText()), 0o600),
		os.WriteFile(c.hbaConf(), []byte(hba), 0o600))
}

// repmgrText returns the settings of repmgr. It looks twice, [promoteAfter]
// apart, before it takes a primary to be gone: each look at one that is cut off
// takes two more seconds. Then the supervisor has a say; program is its own.
func (c Config) repmgrText(program string) string {
	return fmt.Sprintf(`node_id=%d
node_name='%s'
conninfo='%s'
data_directory='%s'
pg_bindir='%s'
failover='automatic'
promote_command='%[8]s -promote -run-dir %[9]s'
follow_command='repmgr standby follow -f %[6]s -W --upstream-node-id=%%n'
reconnect_attempts=2
reconnect_interval=%d
monitor_interval_secs=1
primary_visibility_consensus=true
log_level='NOTICE'
`, c.ID, c.Name, c.conninfo(c.Host, admin), c.data(), c.BinDir, c.repmgrConf(), int(promoteAfter.Seconds()), program, c.RunDir)
}

// hba lets the nodes in by their certificate, Pgpool-II itself by its own, and
// clients by password, through Pgpool-II and its certificate; the node's own user
// over the socket.
const hba = `local   all         ` + admin + `            trust
hostssl replication ` + admin + `   all  cert
hostssl all         ` + admin + `   all  cert
hostssl postgres    ` + watcher + `     all  cert
hostssl all         all      all  scram-sha-256 clientcert=verify-ca
`

// postgresText returns the settings of PostgreSQL. A commit waits for one other
// node; WAL is kept for the time that a node is away.
func (c Config) postgresText() string {
	var names []string
	for _, p := range append([]Peer{c.Peer}, c.Peers...) {
		names = append(names, strconv.Quote(p.Name))
	}
	return fmt.Sprintf(`listen_addresses = '%s'
port = %d
unix_socket_directories = '%s'
unix_socket_permissions = 0700
hba_file = '%s'
ssl = on
ssl_min_protocol_version = 'TLSv1.3'
ssl_cert_file = '%s'
ssl_key_file = '%s'
ssl_ca_file = '%s'
password_encryption = 'scram-sha-256'
shared_preload_libraries = 'repmgr'
wal_level = replica
wal_log_hints = on
hot_standby = on
max_wal_senders = 10
wal_keep_size = 512MB
synchronous_commit = on
synchronous_standby_names = 'ANY 1 (%s)'
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 1s
tcp_keepalives_idle = 3
tcp_keepalives_interval = 1
tcp_keepalives_count = 3
tcp_user_timeout = 5s
`, c.Listen, c.Port, c.RunDir, c.hbaConf(), c.identity(identity.CertificateFile), c.identity(identity.KeyFile), c.identity(identity.AuthorityFile),
		strings.Join(names, ", "))
}

// environment lets programs of PostgreSQL, and the server itself where it
// follows another one, show their certificate and verify that of the other end.
func (c Config) environment() []string {
	return append(os.Environ(), "PGSSLMODE=verify-full",
		"PGSSLCERT="+c.identity(identity.CertificateFile), "PGSSLKEY="+c.identity(identity.KeyFile), "PGSSLROOTCERT="+c.identity(identity.AuthorityFile))
}

func statusAddress(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
