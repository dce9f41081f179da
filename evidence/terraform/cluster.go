package terraform

import (
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/fact"
)

func awsCluster(d *document, r *resource) {
	c := Cluster{Address: r.address}
	network, _, known := r.first("vpc_config")
	c.Public = network.flag("endpoint_public_access", yes)
	if !known {
		c.Public = unknown
	}
	from, all := network.texts("public_access_cidrs")
	if c.From = from; len(from) == 0 && all {
		c.From = []string{"0.0.0.0/0"} // the default of EKS
	}
	c.note(c.Public != unknown, "vpc_config.endpoint_public_access")
	c.note(all, "vpc_config.public_access_cidrs")

	logs, all := r.texts("enabled_cluster_log_types")
	c.AuditLog = has(logs, all, "audit")
	c.SecretEncryption = r.present("encryption_config")
	for _, a := range d.byType["aws_eks_addon"] {
		switch name, _ := a.text("addon_name"); name {
		case "amazon-cloudwatch-observability":
			c.ContainerLog = yes
		case "eks-pod-identity-agent":
			c.WorkloadIdentity = yes
		}
	}
	if len(d.byType["aws_iam_openid_connect_provider"])+len(d.byType["aws_eks_pod_identity_association"]) > 0 {
		c.WorkloadIdentity = yes
	}
	if auto, have, _ := r.first("compute_config"); have && auto.flag("enabled", no) == yes {
		c.WorkloadIdentity = yes // EKS Auto Mode brings the agent
	}
	c.LogDays = d.awsRetention(r)
	d.plan.Clusters = append(d.plan.Clusters, c)
}

// awsRetention returns how long the log group of a cluster keeps its entries.
func (d *document) awsRetention(cluster *resource) int {
	name, _ := cluster.text("name")
	for _, group := range d.byType["aws_cloudwatch_log_group"] {
		if n, _ := group.text("name"); n == "/aws/eks/"+name+"/cluster" {
			days, known := group.number("retention_in_days", 0)
			switch {
			case !known:
				return 0
			case days == 0:
				return Forever
			}
			return days
		}
	}
	return 0
}

// note keeps what of the endpoint is not known.
func (c *Cluster) note(known bool, key string) {
	if !known {
		c.Unknown = append(c.Unknown, key)
	}
}

// has returns whether a list holds a value: not known while the list is not.
func has(list []string, whole bool, value string) fact.Fact {
	switch {
	case slices.Contains(list, value):
		return yes
	case whole:
		return no
	}
	return unknown
}

// present returns whether there is a block under a key.
func (b block) present(key string) fact.Fact {
	_, have, known := b.first(key)
	switch {
	case have:
		return yes
	case known:
		return no
	}
	return unknown
}

func azureCluster(d *document, r *resource) {
	c := Cluster{Address: r.address, Public: r.flag("private_cluster_enabled", no).Not()}
	profile, _, known := r.first("api_server_access_profile")
	from, all := profile.texts("authorized_ip_ranges")
	older, allOlder := r.texts("api_server_authorized_ip_ranges")
	if c.From = append(from, older...); len(c.From) == 0 && known && all && allOlder {
		c.From = []string{"0.0.0.0/0"} // the default of AKS
	}
	c.note(c.Public != unknown, "private_cluster_enabled")
	c.note(known && all && allOlder, "api_server_access_profile.authorized_ip_ranges")
	c.WorkloadIdentity = r.flag("oidc_issuer_enabled", no).And(r.flag("workload_identity_enabled", no))
	c.SecretEncryption = r.present("key_management_service")
	if r.present("oms_agent") == yes {
		c.ContainerLog = yes
	}
	c.AuditLog, c.LogDays = d.azureAudit(r)
	d.plan.Clusters = append(d.plan.Clusters, c)
	d.plan.Machines = append(d.plan.Machines, Machine{
		Address: r.address, Metadata: yes, Why: "AKS lets pods reach the metadata service of their node",
	})
	d.azureIdentity(r)
}

// azureAudit returns whether a diagnostic setting takes the audit log out of a
// cluster, and how long its workspace keeps it.
func (d *document) azureAudit(cluster *resource) (fact.Fact, int) {
	answer := no
	for _, setting := range d.byType["azurerm_monitor_diagnostic_setting"] {
		targets, known := d.named(setting, "target_resource_id", "azurerm_kubernetes_cluster", "id")
		if !known {
			answer = unknown
		}
		if !slices.Contains(targets, cluster) {
			continue
		}
		logs, known := setting.blocks("enabled_log")
		for _, log := range logs {
			category, _ := log.text("category")
			group, _ := log.text("category_group")
			if strings.HasPrefix(category, "kube-audit") || slices.Contains([]string{"audit", "allLogs"}, group) {
				return yes, d.azureRetention(setting)
			}
		}
		if !known {
			answer = unknown
		}
	}
	return answer, 0
}

func (d *document) azureRetention(setting *resource) int {
	spaces, _ := d.named(setting, "log_analytics_workspace_id", "azurerm_log_analytics_workspace", "id")
	if len(spaces) != 1 {
		return 0
	}
	days, known := spaces[0].number("retention_in_days", 30)
	if !known {
		return 0
	}
	return days
}

// openGoogle is who may use an endpoint whose list admits all of Google Cloud,
// where anybody may rent a machine.
const openGoogle = "0.0.0.0/0"

func googleCluster(d *document, r *resource) {
	c := Cluster{Address: r.address}
	private, _, known := r.first("private_cluster_config")
	c.Public = private.flag("enable_private_endpoint", no).Not()
	if endpoints, have, _ := r.first("control_plane_endpoints_config"); have {
		if ip, have, _ := endpoints.first("ip_endpoints_config"); have && ip.flag("enabled", yes) == no {
			c.Public = no // what is left is the DNS endpoint, behind Google's IAM
		}
	}
	c.note(known && c.Public != unknown, "private_cluster_config")
	networks, have, known := r.first("master_authorized_networks_config")
	blocks, all := networks.blocks("cidr_blocks")
	for _, b := range blocks {
		from, knownFrom := b.text("cidr_block")
		c.From, all = append(c.From, from), all && knownFrom
	}
	if known && !have || networks.flag("gcp_public_cidrs_access_enabled", no) == yes {
		c.From = append(c.From, openGoogle)
	}
	c.note(known && all, "master_authorized_networks_config")

	c.WorkloadIdentity = r.present("workload_identity_config")
	autopilot := r.flag("enable_autopilot", no)
	if autopilot == yes {
		c.WorkloadIdentity = yes
	}
	if encryption, have, _ := r.first("database_encryption"); have {
		state, known := encryption.text("state")
		c.SecretEncryption = has([]string{state}, known, "ENCRYPTED")
	} else {
		c.SecretEncryption = r.present("database_encryption")
	}
	c.AuditLog, c.LogDays = yes, 400 // of admin activity, which cannot be turned off
	c.ContainerLog = googleLogs(r)
	d.plan.Clusters = append(d.plan.Clusters, c)
	d.googleNodes(r, r.block, autopilot == yes, c.WorkloadIdentity)
}

func googleLogs(r *resource) fact.Fact {
	if service, _ := r.text("logging_service"); service == "none" {
		return no
	}
	config, have, known := r.first("logging_config")
	if !have {
		if known {
			return yes // the default of GKE
		}
		return unknown
	}
	parts, whole := config.texts("enable_components")
	return has(parts, whole, "WORKLOADS")
}

func awsVolume(d *document, r *resource)  { d.volume(r, r.flag("encrypted", no)) }
func azureDisk(d *document, r *resource)  { d.volume(r, yes) } // always, at least by the platform's key
func googleDisk(d *document, r *resource) { d.volume(r, yes) } // always, at least by Google's key

func (d *document) volume(r *resource, encrypted fact.Fact) {
	d.plan.Volumes = append(d.plan.Volumes, Volume{r.address, encrypted})
}
