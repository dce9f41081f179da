// Package ha runs one node of a PostgreSQL cluster that survives the loss of
// its primary: streaming replication to two standbys, one of which must have
// each commit; repmgr, which promotes a standby; and around both a supervisor
// that fences a primary which is cut off, and brings an old primary back as a
// standby. Pgpool-II leads clients to whichever node is the primary.
//
// No commit that a client saw is lost, and no two nodes take writes, as long as
// one node fails at a time:
//
//   - A commit waits for one standby, and the promoted standby is the one that
//     has most.
//   - A primary that sees no other node stops within [fenceAfter]. The others
//     promote no standby before [promoteAfter] has passed.
//   - A node that was primary and went down does not become primary by itself
//     again before the others had the time to promote one of them.
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
)

// Times, each long enough for the one before.
const (
	fenceAfter   = 6 * time.Second  // alone as a primary
	promoteAfter = 12 * time.Second // without a primary: 4 attempts, 3 seconds apart
	followAfter  = 10 * time.Second // a new primary, if repmgr did not see to it
	grace        = 40 * time.Second // for others, before an old primary starts as one
)

// Superuser of replication, promotion and supervision, and its database.
const admin = "repmgr"

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
	Port         int               // of PostgreSQL, the same on all nodes
	StatusPort   int               // of the supervisors, the same on all nodes
	Dir          string            // for data, sockets and generated configuration
	PasswordFile string            // of the superuser, the same on all nodes
	Peers        []Peer            // the other nodes
	Databases    map[string]string // to make at first start: name, which is also the role's, and password file
	BinDir       string            // of PostgreSQL
}

func (c Config) data() string         { return filepath.Join(c.Dir, "data") }
func (c Config) repmgrConf() string   { return filepath.Join(c.Dir, "repmgr.conf") }
func (c Config) postgresConf() string { return filepath.Join(c.Dir, "postgresql.conf") }
func (c Config) passFile() string     { return filepath.Join(c.Dir, "pgpass") }

// conninfo is how a node is reached by the others.
func (c Config) conninfo(host, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s connect_timeout=2 application_name=%s", host, c.Port, admin, database, c.Name)
}

// local is how the node reaches itself, over a socket that only its own user
// and root can reach.
func (c Config) local(database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s connect_timeout=2", c.Dir, c.Port, admin, database)
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

// write writes the configuration of the node. That of PostgreSQL is not in the
// data folder, where a copy of another node's would replace it.
func (c Config) write() error {
	password, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return fmt.Errorf("password of %s: %w", admin, err)
	}
	repmgr := fmt.Sprintf(`node_id=%d
node_name='%s'
conninfo='%s'
data_directory='%s'
pg_bindir='%s'
failover='automatic'
promote_command='repmgr standby promote -f %[6]s'
follow_command='repmgr standby follow -f %[6]s -W --upstream-node-id=%%n'
reconnect_attempts=4
reconnect_interval=3
monitor_interval_secs=1
primary_visibility_consensus=true
log_level='NOTICE'
`, c.ID, c.Name, c.conninfo(c.Host, admin), c.data(), c.BinDir, c.repmgrConf())
	pass := fmt.Sprintf("*:%d:*:%s:%s\n", c.Port, admin, strings.TrimSpace(string(password)))
	return errors.Join(
		os.WriteFile(c.repmgrConf(), []byte(repmgr), 0o600),
		os.WriteFile(c.postgresConf(), []byte(c.postgres()), 0o600),
		os.WriteFile(c.passFile(), []byte(pass), 0o600))
}

// hba lets clients in by password, and the node's own user over the socket.
const hba = `local all         all           trust
host  all         all  all      scram-sha-256
host  replication all  all      scram-sha-256
`

// postgres returns the settings of PostgreSQL. A commit waits for one other
// node; WAL is kept for the time that a node is away.
func (c Config) postgres() string {
	var names []string
	for _, p := range append([]Peer{c.Peer}, c.Peers...) {
		names = append(names, strconv.Quote(p.Name))
	}
	return fmt.Sprintf(`listen_addresses = '%s'
port = %d
unix_socket_directories = '%s'
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
tcp_keepalives_idle = 5
tcp_keepalives_interval = 2
tcp_keepalives_count = 3
`, c.Host, c.Port, c.Dir, strings.Join(names, ", "))
}

// environment lets programs of PostgreSQL find the password, also where repmgr
// tells a standby whom to follow and leaves out the file.
func (c Config) environment() []string { return append(os.Environ(), "PGPASSFILE="+c.passFile()) }

func (c Config) statusAddress(host string) string {
	return net.JoinHostPort(host, strconv.Itoa(c.StatusPort))
}
