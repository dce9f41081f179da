package terraform

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kubeguardian/kubeguardian/fact"
)

var words = []string{"?", "no", "yes"}

// state makes a state of resources "type.name" with values.
func state(t *testing.T, resources ...string) *Plan {
	t.Helper()
	var list []map[string]any
	for i := 0; i < len(resources); i += 2 {
		kind, name, _ := strings.Cut(resources[i], ".")
		list = append(list, map[string]any{"address": resources[i], "mode": "managed", "type": kind, "name": name, "values": json.RawMessage(resources[i+1])})
	}
	data, err := json.Marshal(map[string]any{"format_version": "1.0", "values": map[string]any{"root_module": map[string]any{"resources": list}}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestFirewalls(t *testing.T) {
	for _, tt := range []struct {
		kind, values string
		want         string // allow priority protocol from ports partial; …
	}{
		{"aws_security_group", `{"ingress": [{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["10.0.0.0/8"], "ipv6_cidr_blocks": ["::/0"]}]}`, "true 0  [10.0.0.0/8 ::/0] [] false"},
		{"aws_security_group", `{"ingress": [{"protocol": "6", "from_port": 22, "to_port": 25, "cidr_blocks": []}]}`, "true 0 tcp [] [{22 25}] false"},
		{"aws_security_group", `{"ingress": [{"protocol": "icmp", "from_port": -1, "to_port": -1, "cidr_blocks": ["0.0.0.0/0"]}]}`, "true 0 icmp [0.0.0.0/0] [{0 65535}] false"},
		{"aws_vpc_security_group_ingress_rule", `{"ip_protocol": "all", "cidr_ipv6": "::/0"}`, "true 0  [::/0] [] false"},
		{"aws_security_group_rule", `{"type": "egress", "protocol": "tcp", "from_port": 22, "to_port": 22, "cidr_blocks": ["0.0.0.0/0"]}`, ""},
		{"aws_network_acl_rule", `{"egress": true, "rule_number": 1, "rule_action": "allow", "protocol": "-1", "cidr_block": "0.0.0.0/0"}`, ""},
		{"aws_network_acl_rule", `{"rule_number": 7, "rule_action": "deny", "protocol": "17", "from_port": 1, "to_port": 2, "cidr_block": "0.0.0.0/0"}`, "false 7 udp [0.0.0.0/0] [{1 2}] false"},
		{"azurerm_network_security_rule", `{"direction": "Inbound", "access": "allow", "priority": 9, "protocol": "*", "source_address_prefixes": ["1.2.3.0/24", "AzureLoadBalancer"], "destination_port_ranges": ["22", "80-90"], "destination_address_prefix": "10.0.0.4"}`,
			"true 9  [1.2.3.0/24] [{22 22} {80 90}] true"},
		{"azurerm_network_security_rule", `{"direction": "Outbound", "access": "Allow", "protocol": "*", "source_address_prefix": "*", "destination_port_range": "*"}`, ""},
		{"google_compute_firewall", `{"direction": "EGRESS", "allow": [{"protocol": "all"}]}`, ""},
		{"google_compute_firewall", `{"source_ranges": ["0.0.0.0/0"], "target_tags": ["web"], "deny": [{"protocol": "TCP", "ports": ["22", "x", "1-2"]}]}`, "false 1000 tcp [0.0.0.0/0] [{22 22} {1 2}] true"},
		{"google_compute_firewall", `{"allow": [{"protocol": "icmp"}]}`, "true 1000 icmp [0.0.0.0/0] [] false"},
		{"google_compute_firewall", `{"source_tags": ["a"], "allow": [{"protocol": "tcp"}]}`, "true 1000 tcp [] [] false"},
		{"google_compute_firewall_policy_rule", `{"direction": "INGRESS", "action": "allow", "priority": 5, "match": [{"src_ip_ranges": ["0.0.0.0/0"], "layer4_configs": [{"ip_protocol": "tcp", "ports": ["22"]}]}]}`,
			"true 5 tcp [0.0.0.0/0] [{22 22}] false"},
		{"google_compute_firewall_policy_rule", `{"direction": "INGRESS", "action": "goto_next", "match": [{}]}`, ""},
	} {
		var got []string
		for _, f := range state(t, tt.kind+".x", tt.values).Firewalls {
			for _, r := range f.Rules {
				got = append(got, fmt.Sprintf("%t %d %s %v %v %t", r.Allow, r.Priority, r.Protocol, r.From, r.Ports, r.Partial))
			}
			if len(f.Unknown) > 0 {
				t.Errorf("%s %s: a state knows all: %v", tt.kind, tt.values, f.Unknown)
			}
		}
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("%s %s:\n%q, want\n%q", tt.kind, tt.values, got, tt.want)
		}
	}
}

// Rules of their own belong to the group that they name by its id.
func TestRulesOfGroups(t *testing.T) {
	plan := state(t,
		"aws_security_group.a", `{"id": "sg-1"}`, "aws_security_group_rule.r", `{"type": "ingress", "security_group_id": "sg-1", "protocol": "tcp", "from_port": 1, "to_port": 1}`,
		"aws_vpc_security_group_ingress_rule.s", `{"security_group_id": "sg-2", "ip_protocol": "tcp", "from_port": 2, "to_port": 2}`,
		"aws_network_acl.l", `{"id": "acl-1", "ingress": []}`, "aws_network_acl_rule.m", `{"network_acl_id": "acl-1", "rule_action": "allow", "protocol": "tcp", "from_port": 3, "to_port": 3}`,
		"azurerm_network_security_group.g", `{"name": "nodes"}`, "azurerm_network_security_rule.h", `{"network_security_group_name": "nodes", "direction": "Inbound", "destination_port_range": "4"}`,
		"google_compute_network.n", `{"name": "main"}`, "google_compute_firewall.f", `{"network": "main", "allow": [{"protocol": "tcp"}]}`, "google_compute_firewall.o", `{"network": "other", "allow": [{"protocol": "tcp"}]}`,
	)
	got := map[string]int{}
	for _, f := range plan.Firewalls {
		got[f.Address] = len(f.Rules)
		if f.Stateless != strings.HasPrefix(f.Address, "aws_network_acl") {
			t.Errorf("%s: stateless %t", f.Address, f.Stateless)
		}
	}
	want := map[string]int{
		"aws_security_group.a": 1, "aws_vpc_security_group_ingress_rule.s": 1, "aws_network_acl.l": 1, "azurerm_network_security_group.g": 1,
		"google_compute_network.n": 1, "network other": 1,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("firewalls %v, want %v", got, want)
	}
}

func TestEntryPoints(t *testing.T) {
	const (
		acl      = `{"arn": "acl", "rule": [{"action": [{"block": [{}]}]}]}`
		counting = `{"arn": "acl", "rule": [{"action": [{"count": [{}]}]}], "default_action": [{"allow": [{}]}]}`
		gateway  = `"frontend_ip_configuration": [{"public_ip_address_id": "ip"}]`
	)
	for name, tt := range map[string]struct {
		resources []string
		want      string // public, WAF, blocking
	}{
		"network balancer":    {[]string{"aws_lb.x", `{"load_balancer_type": "network"}`}, ""},
		"balancer":            {[]string{"aws_lb.x", `{"arn": "lb"}`}, "yes no no"},
		"protected":           {[]string{"aws_lb.x", `{"arn": "lb"}`, "aws_wafv2_web_acl.w", acl, "aws_wafv2_web_acl_association.a", `{"resource_arn": "lb", "web_acl_arn": "acl"}`}, "yes yes yes"},
		"of another":          {[]string{"aws_lb.x", `{"arn": "lb"}`, "aws_wafv2_web_acl.w", acl, "aws_wafv2_web_acl_association.a", `{"resource_arn": "other", "web_acl_arn": "acl"}`}, "yes no no"},
		"counting":            {[]string{"aws_cloudfront_distribution.x", `{"web_acl_id": "acl"}`, "aws_wafv2_web_acl.w", counting}, "yes yes no"},
		"disabled":            {[]string{"aws_cloudfront_distribution.x", `{"enabled": false}`}, "no no no"},
		"by default action":   {[]string{"aws_cloudfront_distribution.x", `{"web_acl_id": "acl"}`, "aws_wafv2_web_acl.w", `{"arn": "acl", "default_action": [{"block": [{}]}]}`}, "yes yes yes"},
		"rules in JSON":       {[]string{"aws_cloudfront_distribution.x", `{"web_acl_id": "acl"}`, "aws_wafv2_web_acl.w", `{"arn": "acl", "rule_json": "[]"}`}, "yes yes ?"},
		"gateway with policy": {[]string{"azurerm_application_gateway.x", `{"firewall_policy_id": "p", ` + gateway + `}`, "azurerm_web_application_firewall_policy.p", `{"id": "p", "policy_settings": [{}]}`}, "yes yes yes"},
		"policy that detects": {[]string{"azurerm_application_gateway.x", `{"firewall_policy_id": "p", ` + gateway + `}`, "azurerm_web_application_firewall_policy.p", `{"id": "p", "policy_settings": [{"mode": "Detection"}]}`}, "yes yes no"},
		"policy elsewhere":    {[]string{"azurerm_application_gateway.x", `{"firewall_policy_id": "p", ` + gateway + `}`}, "yes yes ?"},
		"private gateway":     {[]string{"azurerm_application_gateway.x", `{"sku": [{"tier": "Standard_v2"}], "frontend_ip_configuration": [{}]}`}, "no no no"},
		"front door":          {[]string{"azurerm_cdn_frontdoor_endpoint.x", `{}`}, "yes no no"},
		"front door, unsure":  {[]string{"azurerm_cdn_frontdoor_endpoint.x", `{}`, "azurerm_cdn_frontdoor_security_policy.p", `{}`}, "yes ? ?"},
		"internal backend":    {[]string{"google_compute_backend_service.x", `{"load_balancing_scheme": "INTERNAL_MANAGED"}`}, "no no no"},
		"TCP backend":         {[]string{"google_compute_backend_service.x", `{"protocol": "TCP"}`}, ""},
		"armoured":            {[]string{"google_compute_backend_service.x", `{"security_policy": "p"}`, "google_compute_security_policy.p", `{"name": "p"}`, "google_compute_security_policy_rule.r", `{"security_policy": "p", "action": "deny(403)"}`}, "yes yes yes"},
		"armour that allows":  {[]string{"google_compute_backend_service.x", `{"security_policy": "p"}`, "google_compute_security_policy.p", `{"name": "p", "rule": [{"action": "allow"}]}`}, "yes yes no"},
	} {
		got := ""
		for _, e := range state(t, tt.resources...).EntryPoints {
			got = fmt.Sprintf("%s %s %s", words[e.Public], words[e.WAF], words[e.Blocking])
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestMachines(t *testing.T) {
	for _, tt := range []struct {
		kind, values string
		want         fact.Fact
	}{
		{"aws_launch_template", `{"metadata_options": [{"http_endpoint": "disabled"}]}`, no},
		{"aws_launch_template", `{"metadata_options": [{"http_tokens": "required", "http_put_response_hop_limit": 1}]}`, no},
		{"aws_launch_template", `{"metadata_options": [{"http_tokens": "required", "http_put_response_hop_limit": 64}]}`, yes},
		{"aws_launch_template", `{"metadata_options": [{"http_put_response_hop_limit": 1}]}`, yes},
		{"aws_launch_configuration", `{}`, yes},
		{"aws_eks_node_group", `{"launch_template": []}`, yes},
		{"google_container_node_pool", `{"node_config": [{"workload_metadata_config": [{"mode": "GKE_METADATA"}]}]}`, no},
		{"google_container_node_pool", `{"node_config": [{"workload_metadata_config": [{"mode": "GCE_METADATA"}]}]}`, yes},
		{"google_container_node_pool", `{"node_config": [{}]}`, fact.Unknown}, // its cluster is elsewhere
		{"google_container_cluster", `{"enable_autopilot": true}`, no},
		{"azurerm_kubernetes_cluster", `{}`, yes},
	} {
		got := state(t, tt.kind+".x", tt.values).Machines
		if len(got) != 1 || got[0].Metadata != tt.want || got[0].Why == "" {
			t.Errorf("%s %s: %+v, want %d", tt.kind, tt.values, got, tt.want)
		}
	}
	if got := state(t, "aws_eks_node_group.x", `{"launch_template": [{}]}`).Machines; got != nil {
		t.Errorf("the template says it: %+v", got)
	}
}

func TestIdentities(t *testing.T) {
	const (
		trust = `"assume_role_policy": "{\"Principal\": {\"Service\": \"ec2.amazonaws.com\"}}"`
		role  = `{"name": "n", ` + trust + `}`
		pool  = `{"node_config": [{"service_account": "n@p.iam.gserviceaccount.com"}]}`
	)
	for name, tt := range map[string]struct {
		resources []string
		broad     int
	}{
		"nothing attached":   {[]string{"aws_iam_role.x", role}, 0},
		"attached by name":   {[]string{"aws_iam_role.x", role, "aws_iam_role_policy_attachment.a", `{"role": "n", "policy_arn": "arn:aws:iam::aws:policy/PowerUserAccess"}`}, 1},
		"of another role":    {[]string{"aws_iam_role.x", role, "aws_iam_role_policy_attachment.a", `{"role": "m", "policy_arn": "arn:aws:iam::aws:policy/PowerUserAccess"}`}, 0},
		"a job function":     {[]string{"aws_iam_role.x", role, "aws_iam_role_policy_attachment.a", `{"role": "n", "policy_arn": "arn:aws-cn:iam::aws:policy/job-function/SystemAdministrator"}`}, 1},
		"in China":           {[]string{"aws_iam_role.x", role, "aws_iam_role_policy_attachment.a", `{"role": "n", "policy_arn": "arn:aws-cn:iam::aws:policy/AmazonS3FullAccess"}`}, 1},
		"own name":           {[]string{"aws_iam_role.x", role, "aws_iam_role_policy_attachment.a", `{"role": "n", "policy_arn": "arn:aws:iam::1:policy/AdministratorAccess"}`}, 0},
		"own policy":         {[]string{"aws_iam_role.x", role, "aws_iam_policy.p", `{"arn": "p", "policy": "{\"Statement\": {\"Effect\": \"Allow\", \"Action\": \"*\", \"Resource\": \"*\"}}"}`, "aws_iam_role_policy_attachment.a", `{"role": "n", "policy_arn": "p"}`}, 1},
		"in the role":        {[]string{"aws_iam_role.x", `{` + trust + `, "managed_policy_arns": ["arn:aws:iam::aws:policy/IAMFullAccess"], "inline_policy": [{"policy": "{\"Statement\": {\"Effect\": \"Allow\", \"Action\": \"s3:*\", \"Resource\": \"*\"}}"}]}`}, 2},
		"account of Google":  {[]string{"google_container_node_pool.x", pool}, 0},
		"default of Google":  {[]string{"google_container_node_pool.x", `{"node_config": [{"service_account": "default"}]}`}, 1},
		"owner":              {[]string{"google_container_node_pool.x", pool, "google_project_iam_binding.b", `{"role": "roles/owner", "members": ["user:a@b", "serviceAccount:n@p.iam.gserviceaccount.com"]}`}, 1},
		"an admin":           {[]string{"google_container_node_pool.x", pool, "google_project_iam_member.b", `{"role": "roles/storage.admin", "member": "serviceAccount:n@p.iam.gserviceaccount.com"}`}, 1},
		"a log writer":       {[]string{"google_container_node_pool.x", pool, "google_project_iam_member.b", `{"role": "roles/logging.logWriter", "member": "serviceAccount:n@p.iam.gserviceaccount.com"}`}, 0},
		"another's owner":    {[]string{"google_container_node_pool.x", pool, "google_project_iam_member.b", `{"role": "roles/owner", "member": "serviceAccount:m@p.iam.gserviceaccount.com"}`}, 0},
		"Autopilot":          {[]string{"google_container_cluster.x", `{"enable_autopilot": true, "cluster_autoscaling": [{"auto_provisioning_defaults": [{"service_account": "n@p"}]}]}`}, 0},
		"Autopilot, default": {[]string{"google_container_cluster.x", `{"enable_autopilot": true}`}, 1},
	} {
		got := state(t, tt.resources...).Identities
		if len(got) != 1 || len(got[0].Broad) != tt.broad || len(got[0].Unknown) > 0 {
			t.Errorf("%s: %+v, want %d broad rights", name, got, tt.broad)
		}
	}
	if got := state(t, "aws_iam_role.x", `{"assume_role_policy": "{\"Principal\": {\"Service\": \"lambda.amazonaws.com\"}}"}`).Identities; got != nil {
		t.Errorf("no node takes this role: %+v", got)
	}
}

func TestAudit(t *testing.T) {
	const cluster = `{"id": "c"}`
	setting := func(log string) string {
		return `{"target_resource_id": "c", "log_analytics_workspace_id": "w", "enabled_log": [` + log + `]}`
	}
	for name, tt := range map[string]struct {
		resources []string
		log       fact.Fact
		days      int
	}{
		"no setting":       {[]string{"azurerm_kubernetes_cluster.x", cluster}, no, 0},
		"audit":            {[]string{"azurerm_kubernetes_cluster.x", cluster, "azurerm_monitor_diagnostic_setting.s", setting(`{"category": "kube-audit"}`), "azurerm_log_analytics_workspace.w", `{"id": "w"}`}, yes, 30},
		"all":              {[]string{"azurerm_kubernetes_cluster.x", cluster, "azurerm_monitor_diagnostic_setting.s", setting(`{"category_group": "allLogs"}`)}, yes, 0},
		"others":           {[]string{"azurerm_kubernetes_cluster.x", cluster, "azurerm_monitor_diagnostic_setting.s", setting(`{"category": "guard"}`)}, no, 0},
		"EKS":              {[]string{"aws_eks_cluster.x", `{"name": "c", "vpc_config": [{}], "enabled_cluster_log_types": ["audit"]}`, "aws_cloudwatch_log_group.g", `{"name": "/aws/eks/c/cluster", "retention_in_days": 7}`}, yes, 7},
		"EKS for ever":     {[]string{"aws_eks_cluster.x", `{"name": "c", "vpc_config": [{}], "enabled_cluster_log_types": ["audit"]}`, "aws_cloudwatch_log_group.g", `{"name": "/aws/eks/c/cluster", "retention_in_days": 0}`}, yes, Forever},
		"group of another": {[]string{"aws_eks_cluster.x", `{"name": "c", "vpc_config": [{}]}`, "aws_cloudwatch_log_group.g", `{"name": "/aws/eks/d/cluster", "retention_in_days": 7}`}, no, 0},
	} {
		got := state(t, tt.resources...).Clusters
		if len(got) != 1 || got[0].AuditLog != tt.log || got[0].LogDays != tt.days {
			t.Errorf("%s: %+v, want %s and %d days", name, got, words[tt.log], tt.days)
		}
	}
}
