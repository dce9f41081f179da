package config

import (
	"net"
	"regexp"
	"strings"
)

// LeafNodes configures the server as a hub, to which other clusters report.
// Without Listen none can.
type LeafNodes struct {
	// Listen is host:port for the servers of clusters. They reach it by TLS, unless
	// it is a loopback address and Hosts are none.
	Listen string `yaml:"listen"`
	// Hosts are the names and addresses by which clusters reach Listen, for its
	// certificate, besides the address in Listen. It is of the authority of the
	// webhooks.
	Hosts []string `yaml:"hosts"`
	// Clusters is a file with a line for each cluster that may report: its name, a
	// blank and its public key, as kubeguardian setup cluster-key prints them. It is
	// read again whenever a cluster connects, and every two seconds.
	Clusters string `yaml:"clusters"`
}

// Hub is where the server reports what happens in its cluster. Without URL it does
// not.
type Hub struct {
	// URL is tls://host:port of the hub.
	URL string `yaml:"url"`
	// KeyFile is the key of this cluster; the hub knows it by the name in cluster.
	KeyFile string `yaml:"keyFile"`
	// CAFile has the authorities of the hub in PEM; without it the system's count.
	CAFile string `yaml:"caFile"`
}

// clusterName is what a cluster may be called that reports to a hub, or is one.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// hub checks how clusters report to one.
func (d *decoder) hub(c *Config) {
	leafs, hub := &c.Bus.LeafNodes, &c.Bus.Hub
	if leafs.Listen != "" && hub.URL != "" {
		d.bad("bus.hub.url", "bus.leafNodes.listen is given too: a server is a hub or reports to one")
	}
	if (leafs.Listen != "" || hub.URL != "") && (len(c.Cluster) > 100 || !clusterName.MatchString(c.Cluster)) {
		d.bad("cluster", "between clusters a name has letters, digits, dashes and dots, and at most 100 of them, have %q", clip(c.Cluster))
	}
	if leafs.Listen != "" {
		host, ok := d.address("bus.leafNodes.listen", leafs.Listen)
		if ok && unspecified(host) && len(leafs.Hosts) == 0 {
			d.bad("bus.leafNodes.listen", "%s does not say how clusters reach it: set bus.leafNodes.hosts", leafs.Listen)
		}
		d.required("bus.leafNodes.clusters", leafs.Clusters)
	}
	for i, host := range leafs.Hosts {
		if net.ParseIP(host) == nil && !hostName.MatchString(host) {
			d.bad(index("bus.leafNodes.hosts", i), "want a host name or an address without port, have %q", clip(host))
		}
	}
	if hub.URL == "" {
		return
	}
	scheme, address, _ := strings.Cut(hub.URL, "://")
	host, _, err := net.SplitHostPort(address)
	switch {
	case strings.Contains(address, "@"):
		d.bad("bus.hub.url", "it holds credentials: the key belongs into bus.hub.keyFile")
	case err != nil || host == "" || scheme != "tls" && scheme != "nats":
		d.bad("bus.hub.url", "want tls://host:port, have %q", clip(hub.URL))
	case scheme == "nats" && !loopback(host):
		d.bad("bus.hub.url", "%s is not a loopback address: without TLS alerts could be read and changed on the way: use tls://", host)
	}
	d.required("bus.hub.keyFile", hub.KeyFile)
}
