package terraform

import "github.com/kubeguardian/kubeguardian/fact"

// awsLaunch reads what instances are launched from.
func awsLaunch(d *document, r *resource) {
	m := Machine{Address: r.address}
	options, have, known := r.first("metadata_options")
	switch {
	case !known:
		m.Why = "metadata_options is known only after apply"
	case !have:
		if m.Metadata, m.Why = d.awsDefaults(); m.Metadata == unknown && m.Why == "" {
			m.Metadata, m.Why = yes, "no metadata_options, so version 1 of the service may answer"
		}
	default:
		m.Metadata, m.Why = awsMetadata(options)
	}
	d.plan.Machines = append(d.plan.Machines, m)
}

// awsDefaults reads what the account demands of instances that say nothing.
func (d *document) awsDefaults() (fact.Fact, string) {
	for _, r := range d.byType["aws_ec2_instance_metadata_defaults"] {
		return awsMetadata(r.block)
	}
	return unknown, ""
}

// awsMetadata says whether pods reach the metadata service. The limit of hops
// holds back the answer to the request for a token, and so only counts where
// tokens are required.
func awsMetadata(options block) (fact.Fact, string) {
	endpoint, knownEndpoint := options.text("http_endpoint")
	tokens, knownTokens := options.text("http_tokens")
	hops, knownHops := options.number("http_put_response_hop_limit", 0)
	switch {
	case endpoint == "disabled":
		return no, "http_endpoint is disabled"
	case !knownEndpoint || !knownTokens || !knownHops:
		return unknown, "metadata_options is known only after apply"
	case tokens != "required":
		return yes, "http_tokens is not required"
	case hops > 1:
		return yes, "http_put_response_hop_limit is more than 1"
	case hops == 0:
		return unknown, "http_put_response_hop_limit is not set, so the image decides"
	}
	return no, "tokens are required and pass 1 hop"
}

// awsNodeGroup reads a managed node group: without a launch template, EKS sets
// a limit of two hops, which lets pods reach the service.
func awsNodeGroup(d *document, r *resource) {
	switch r.present("launch_template") {
	case no:
		d.plan.Machines = append(d.plan.Machines, Machine{
			Address: r.address, Metadata: yes, Why: "without a launch template EKS lets the metadata service answer over 2 hops",
		})
	case unknown:
		d.plan.Machines = append(d.plan.Machines, Machine{Address: r.address, Why: "launch_template is known only after apply"})
	}
}

// googlePool reads a node pool of GKE.
func googlePool(d *document, r *resource) {
	identity := unknown
	clusters, _ := d.named(r, "cluster", "google_container_cluster", "name", "id", "self_link")
	if len(clusters) == 1 {
		identity = clusters[0].present("workload_identity_config")
	}
	d.googleNodes(r, r.block, false, identity)
}

// googleNodes reads the nodes that a cluster or a pool makes.
func (d *document) googleNodes(r *resource, b block, autopilot bool, identity fact.Fact) {
	if b.flag("remove_default_node_pool", no) == yes {
		return
	}
	config, have, known := b.first("node_config")
	m := Machine{Address: r.address, Metadata: identity.Not(), Why: "the cluster has workload identity, which new pools take over"}
	if mode, haveMode, _ := config.first("workload_metadata_config"); haveMode {
		value, _ := mode.text("mode")
		m.Metadata, m.Why = has([]string{value}, !mode.pending("mode"), "GKE_METADATA").Not(), "workload_metadata_config.mode is "+value
	} else if identity != yes {
		m.Why = "workload_metadata_config is not set"
	}
	if autopilot {
		m.Metadata, m.Why = no, "Autopilot hides the metadata of nodes"
	}
	d.plan.Machines = append(d.plan.Machines, m)
	if autopilot {
		config, have, known = b.autoProvisioning()
	}
	d.googleIdentity(r, config, have, known)
}

// autoProvisioning returns the settings of the nodes that GKE makes by itself.
func (b block) autoProvisioning() (inner block, have, known bool) {
	scaling, _, knownScaling := b.first("cluster_autoscaling")
	inner, have, known = scaling.first("auto_provisioning_defaults")
	return inner, have, known && knownScaling
}
