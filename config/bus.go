package config

import (
	"net"
	"regexp"
	"strings"
	"time"
)

// Bus configures how node agents report. Without Listen and External.URL they
// cannot.
type Bus struct {
	// Listen is host:port of the bus that is embedded in the server. Agents reach
	// it by TLS, unless it is a loopback address and Hosts are none.
	Listen string `yaml:"listen"`
	// Hosts are the names and addresses by which agents reach Listen, for its
	// certificate, besides the address in Listen. It is of the authority of the
	// webhooks.
	Hosts []string `yaml:"hosts"`
	// ServiceAccounts are those of agents, each as namespace/name. When the key is
	// not given it is kubeguardian-agent in the namespace of the server.
	ServiceAccounts []string `yaml:"serviceAccounts"`
	// HostTokens is a file with the tokens of hosts outside the cluster: a line for
	// each, its name, a blank and its token.
	HostTokens string `yaml:"hostTokens"`
	// MaxMiB is what alerts that are not stored yet may take on disk: 64 to 1048576.
	// When it is reached, agents keep theirs.
	MaxMiB int `yaml:"maxMiB"`
	// Sync is how often what agents sent is forced to the disk, at most 1m; with 0s
	// that is done before each is acknowledged.
	Sync time.Duration `yaml:"sync"`
	// AuthorityConfigMap is a ConfigMap, as namespace/name, whose key ca.crt the
	// server writes the authority of Listen into, for agents in pods; "" is none.
	AuthorityConfigMap string `yaml:"authorityConfigMap"`
	// External is a NATS cluster with JetStream, in place of the embedded one.
	External ExternalBus `yaml:"external"`
	// LeafNodes makes the server a hub for many clusters.
	LeafNodes LeafNodes `yaml:"leafNodes"`
	// Hub is the hub that the server reports to.
	Hub Hub `yaml:"hub"`
}

// On reports whether agents can report.
func (b *Bus) On() bool { return b.Listen != "" || b.External.URL != "" }

// ExternalBus is a NATS cluster. It checks who connects by itself.
type ExternalBus struct {
	// URL is tls://host:port; several have commas between.
	URL string `yaml:"url"`
	// CredentialsFile is a credentials file of NATS.
	CredentialsFile string `yaml:"credentialsFile"`
	// CAFile has the authorities of the cluster in PEM; without it the system's
	// count.
	CAFile string `yaml:"caFile"`
	// CertFile and KeyFile are PEM files; both or neither.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// Replicas is how many servers of the cluster keep each alert: 1 to 5.
	Replicas int `yaml:"replicas"`
}

// bus checks how agents report.
func (d *decoder) bus(c *Config) {
	b := &c.Bus
	if b.Listen != "" && b.External.URL != "" {
		d.bad("bus.listen", "bus.external.url is given too: the bus is embedded or elsewhere")
	}
	if b.Listen != "" {
		if host, ok := d.address("bus.listen", b.Listen); ok && unspecified(host) && len(b.Hosts) == 0 {
			d.bad("bus.listen", "%s does not say how agents reach it: set bus.hosts", b.Listen)
		}
	}
	for i, host := range b.Hosts {
		if net.ParseIP(host) == nil && !hostName.MatchString(host) {
			d.bad(index("bus.hosts", i), "want a host name or an address without port, have %q", clip(host))
		}
	}
	for i, account := range b.ServiceAccounts {
		if !serviceAccount.MatchString(account) {
			d.bad(index("bus.serviceAccounts", i), "want namespace/name, have %q", clip(account))
		}
	}
	if b.ServiceAccounts == nil {
		namespace := c.Webhook.Service.Namespace
		if namespace == "" {
			namespace = "kubeguardian"
		}
		b.ServiceAccounts = []string{namespace + "/kubeguardian-agent"}
	}
	if b.MaxMiB < 64 || b.MaxMiB > 1<<20 {
		d.bad("bus.maxMiB", "want 64 to 1048576, have %d", b.MaxMiB)
	}
	if b.Sync < 0 || b.Sync > time.Minute {
		d.bad("bus.sync", "want 0s to 1m, have %s", b.Sync)
	}
	if namespace, name, ok := strings.Cut(b.AuthorityConfigMap, "/"); b.AuthorityConfigMap != "" && (!ok || namespace == "" || name == "" || strings.Contains(name, "/")) {
		d.bad("bus.authorityConfigMap", "want namespace/name, have %q", clip(b.AuthorityConfigMap))
	}
	d.externalBus(&b.External)
}

func (d *decoder) externalBus(e *ExternalBus) {
	if e.URL != "" {
		for _, u := range strings.Split(e.URL, ",") {
			scheme, address, _ := strings.Cut(u, "://")
			host, _, err := net.SplitHostPort(address)
			switch {
			case err != nil || host == "" || scheme != "tls" && scheme != "nats":
				d.bad("bus.external.url", "want tls://host:port, have %q", clip(u))
			case strings.Contains(host, "@"):
				d.bad("bus.external.url", "it holds credentials: they belong into bus.external.credentialsFile")
			case scheme == "nats" && !loopback(host):
				d.bad("bus.external.url", "%s is not a loopback address: without TLS alerts could be read and changed on the way: use tls://", host)
			}
		}
	}
	switch {
	case e.CertFile != "" && e.KeyFile == "":
		d.bad("bus.external.certFile", "bus.external.keyFile is missing: give both")
	case e.CertFile == "" && e.KeyFile != "":
		d.bad("bus.external.keyFile", "bus.external.certFile is missing: give both")
	}
	if e.Replicas < 1 || e.Replicas > 5 {
		d.bad("bus.external.replicas", "want 1 to 5, have %d", e.Replicas)
	}
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([-.A-Za-z0-9]{0,251}[A-Za-z0-9])?$`)

var serviceAccount = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
