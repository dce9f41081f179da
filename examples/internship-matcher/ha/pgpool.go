package ha

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PgpoolConfig says how Pgpool-II leads clients to the primary.
type PgpoolConfig struct {
	Host         string
	Port         int
	Dir          string // for its sockets and configuration
	Nodes        []Peer
	NodePort     int
	PasswordFile string            // of the superuser
	Databases    map[string]string // names, which are also those of the roles, and password files
}

// Write writes its configuration. It sends everything to the primary, because
// an application wants to read what it has just written. It promotes nobody:
// repmgr does.
func (c PgpoolConfig) Write() error {
	var conf strings.Builder
	set := func(key, format string, args ...any) {
		fmt.Fprintf(&conf, "%s = '%s'\n", key, strings.ReplaceAll(fmt.Sprintf(format, args...), "'", "''"))
	}
	set("backend_clustering_mode", "streaming_replication")
	set("listen_addresses", "%s", c.Host)
	set("port", "%d", c.Port)
	set("socket_dir", "%s", c.Dir)
	set("pcp_listen_addresses", "")
	set("pcp_socket_dir", "%s", c.Dir)
	set("logdir", "%s", c.Dir) // of what it knows about the nodes
	set("pid_file_name", "%s", filepath.Join(c.Dir, "pgpool.pid"))
	set("enable_pool_hba", "on")
	set("pool_passwd", "%s", filepath.Join(c.Dir, "pool_passwd"))
	set("num_init_children", "64")
	set("connection_cache", "off") // a pooled connection to an old primary would outlive it
	set("load_balance_mode", "off")
	set("failover_on_backend_error", "off")
	set("failover_command", "")
	set("follow_primary_command", "")
	set("auto_failback", "on")
	set("auto_failback_interval", "1")
	// Longer than any promotion takes: without a primary it would lead clients to a
	// standby until the next node comes or goes. Meanwhile it takes no node back.
	set("search_primary_node_timeout", "120")
	for _, check := range []string{"sr_check", "health_check"} {
		set(check+"_period", "1")
		set(check+"_user", admin)
		set(check+"_database", "postgres")
	}
	set("health_check_timeout", "2")
	set("health_check_max_retries", "2")
	set("health_check_retry_delay", "1")
	for i, n := range c.Nodes {
		set(fmt.Sprintf("backend_hostname%d", i), "%s", n.Host)
		set(fmt.Sprintf("backend_port%d", i), "%d", c.NodePort)
		set(fmt.Sprintf("backend_application_name%d", i), "%s", n.Name)
		set(fmt.Sprintf("backend_flag%d", i), "ALLOW_TO_FAILOVER")
	}
	passwords, err := c.passwords()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"pgpool.conf":   conf.String(),
		"pool_hba.conf": "host all all all scram-sha-256\n",
		"pcp.conf":      "",
		"pool_passwd":   passwords,
	} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// passwords lists the passwords that Pgpool-II needs to log in for its clients.
func (c PgpoolConfig) passwords() (string, error) {
	files := map[string]string{admin: c.PasswordFile}
	for name, file := range c.Databases {
		files[name] = file
	}
	var text strings.Builder
	for name, file := range files {
		password, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "%s:TEXT%s\n", name, strings.TrimSpace(string(password)))
	}
	return text.String(), nil
}

// Arguments start it in the foreground.
func (c PgpoolConfig) Arguments() []string {
	return []string{"-n", "-D", "-f", filepath.Join(c.Dir, "pgpool.conf"), "-a", filepath.Join(c.Dir, "pool_hba.conf"), "-F", filepath.Join(c.Dir, "pcp.conf")}
}
