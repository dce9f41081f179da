package terraform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// awsSecurityGroup reads a security group with the rules that stand in it. Its
// other rules are resources of their own, and may be in another document.
func awsSecurityGroup(d *document, r *resource) {
	f := d.firewall(r.address)
	rules := d.inside(f, r, "ingress", "cidr_blocks", "ipv6_cidr_blocks", "protocol", "from_port", "to_port")
	for _, b := range rules {
		from, _ := b.texts("cidr_blocks")
		from6, _ := b.texts("ipv6_cidr_blocks")
		rule := Rule{Address: r.address, Allow: true, From: append(from, from6...)}
		rule.Protocol, rule.Ports = awsPorts(b, "protocol")
		f.Rules = append(f.Rules, rule)
	}
}

// inside returns the rules that stand in a firewall's own resource, and notes
// those of which one of the keys is not known. A configuration does not show
// whether such rules are set, so if they are not known, other resources may
// still hold all there are.
func (d *document) inside(f *Firewall, r *resource, key string, keys ...string) []block {
	rules, _ := r.blocks(key)
	f.pending = len(rules) == 0 && member(r.unknown, key) == true
	for i, b := range rules {
		if slices.ContainsFunc(keys, b.pending) {
			f.Unknown = append(f.Unknown, fmt.Sprintf("%s[%d]", key, i))
		}
	}
	return rules
}

// awsGroupRule reads a rule of a security group.
func awsGroupRule(d *document, r *resource) {
	if kind, known := r.text("type"); known && kind != "ingress" {
		return
	}
	from, all := r.texts("cidr_blocks")
	from6, all6 := r.texts("ipv6_cidr_blocks")
	d.groupRule(r, append(from, from6...), all && all6, "protocol", "from_port", "to_port")
}

// awsIngressRule reads a rule of a security group in its newer form.
func awsIngressRule(d *document, r *resource) {
	var from []string
	all := true
	for _, key := range []string{"cidr_ipv4", "cidr_ipv6"} {
		v, known := r.text(key)
		if all = all && known; v != "" {
			from = append(from, v)
		}
	}
	d.groupRule(r, from, all, "ip_protocol", "from_port", "to_port")
}

func (d *document) groupRule(r *resource, from []string, whole bool, protocol string, ports ...string) {
	f := d.firewall(d.groupOf(r))
	for _, key := range append(ports, protocol) {
		whole = whole && !r.pending(key)
	}
	if !whole {
		f.Unknown = append(f.Unknown, "rule "+r.address)
	}
	rule := Rule{Address: r.address, Allow: true, From: from}
	rule.Protocol, rule.Ports = awsPorts(r.block, protocol)
	f.Rules = append(f.Rules, rule)
}

// groupOf returns the address of the group that a rule is for, else the rule's
// own.
func (d *document) groupOf(r *resource) string {
	for _, kind := range []string{"aws_security_group", "aws_default_security_group"} {
		if groups, _ := d.named(r, "security_group_id", kind, "id"); len(groups) == 1 {
			return groups[0].address
		}
	}
	return r.address
}

// awsPorts reads protocol and ports. Protocol -1 is all, whatever the ports.
func awsPorts(b block, key string) (protocol string, ports []Range) {
	protocol, _ = b.text(key)
	if protocol = protocolOf(protocol); protocol == "" {
		return "", nil
	}
	first, _ := b.number("from_port", 0)
	last, _ := b.number("to_port", 65535)
	if first < 0 || last < 0 {
		first, last = 0, 65535
	}
	return protocol, []Range{{first, last}}
}

// protocolOf returns the name of a protocol that may be given by number, and ""
// for all.
func protocolOf(s string) string {
	switch s = strings.ToLower(s); s {
	case "-1", "all", "*", "any":
		return ""
	case "6":
		return "tcp"
	case "17":
		return "udp"
	}
	return s
}

func awsACL(d *document, r *resource) {
	f := d.firewall(r.address)
	f.Stateless = true
	for _, b := range d.inside(f, r, "ingress", "cidr_block", "ipv6_cidr_block", "action", "rule_no", "from_port", "to_port") {
		number, _ := b.number("rule_no", 0)
		action, _ := b.text("action")
		f.Rules = append(f.Rules, aclRule(r.address, b, number, action))
	}
}

func awsACLRule(d *document, r *resource) {
	if r.flag("egress", no) == yes {
		return
	}
	address := r.address
	if lists, _ := d.named(r, "network_acl_id", "aws_network_acl", "id"); len(lists) == 1 {
		address = lists[0].address
	}
	f := d.firewall(address)
	f.Stateless = true
	number, _ := r.number("rule_number", 0)
	action, _ := r.text("rule_action")
	if slices.ContainsFunc([]string{"cidr_block", "ipv6_cidr_block", "rule_action", "from_port", "to_port"}, r.pending) {
		f.Unknown = append(f.Unknown, "rule "+r.address)
	}
	f.Rules = append(f.Rules, aclRule(r.address, r.block, number, action))
}

func aclRule(address string, b block, number int, action string) Rule {
	rule := Rule{Address: address, Allow: action == "allow", Priority: number}
	for _, key := range []string{"cidr_block", "ipv6_cidr_block"} {
		if v, _ := b.text(key); v != "" {
			rule.From = append(rule.From, v)
		}
	}
	rule.Protocol, rule.Ports = awsPorts(b, "protocol")
	return rule
}

func azureGroup(d *document, r *resource) {
	f := d.firewall(r.address)
	for _, b := range d.inside(f, r, "security_rule") {
		d.azureRule(f, r.address, b)
	}
}

func azureRule(d *document, r *resource) {
	address := r.address
	if groups, _ := d.named(r, "network_security_group_name", "azurerm_network_security_group", "name"); len(groups) == 1 {
		address = groups[0].address
	}
	d.azureRule(d.firewall(address), r.address, r.block)
}

func (d *document) azureRule(f *Firewall, address string, b block) {
	if direction, known := b.text("direction"); known && !strings.EqualFold(direction, "Inbound") {
		return
	}
	access, _ := b.text("access")
	rule := Rule{Address: address, Allow: strings.EqualFold(access, "Allow")}
	rule.Priority, _ = b.number("priority", 0)
	protocol, _ := b.text("protocol")
	rule.Protocol = protocolOf(protocol)
	one, known := b.text("source_address_prefix")
	from, all := b.texts("source_address_prefixes")
	rule.From = azureFrom(append(from, one))
	port, knownPort := b.text("destination_port_range")
	ports, allPorts := b.texts("destination_port_ranges")
	rule.Ports = parseRanges(append(ports, port))
	to, _ := b.text("destination_address_prefix")
	rule.Partial = to != "*" && to != ""
	if !known || !all || !knownPort || !allPorts || b.pending("access") || b.pending("priority") {
		f.Unknown = append(f.Unknown, "rule "+address)
	}
	if len(rule.Ports) > 0 || port == "*" {
		f.Rules = append(f.Rules, rule)
	}
}

// azureFrom writes the words for everybody as a CIDR block. Other words, such
// as VirtualNetwork, stand for addresses of one's own.
func azureFrom(prefixes []string) []string {
	var out []string
	for _, p := range prefixes {
		switch strings.ToLower(p) {
		case "*", "internet", "any":
			p = "0.0.0.0/0"
		}
		if strings.Contains(p, "/") || strings.Contains(p, ".") {
			out = append(out, p)
		}
	}
	return out
}

// parseRanges reads "22" and "20-30"; "*" is every port, for which there is no
// range.
func parseRanges(texts []string) []Range {
	var out []Range
	for _, t := range texts {
		if t == "*" {
			return nil
		}
		first, last, dash := strings.Cut(t, "-")
		if !dash {
			last = first
		}
		a, err := strconv.Atoi(strings.TrimSpace(first))
		b, err2 := strconv.Atoi(strings.TrimSpace(last))
		if err == nil && err2 == nil {
			out = append(out, Range{a, b})
		}
	}
	return out
}

// googleFirewall reads a rule of a network; the rules of a network are one
// firewall.
func googleFirewall(d *document, r *resource) {
	direction, _ := r.text("direction")
	if direction == "EGRESS" || r.flag("disabled", no) == yes {
		return
	}
	f := d.firewall(d.googleNetwork(r))
	from, known := r.texts("source_ranges")
	if !known || r.pending("allow") || r.pending("priority") {
		f.Unknown = append(f.Unknown, "rule "+r.address)
	}
	if len(from) == 0 && known && !r.given("source_tags") && !r.given("source_service_accounts") && len(listOf(r.block, "source_tags"))+len(listOf(r.block, "source_service_accounts")) == 0 {
		from = []string{"0.0.0.0/0"} // what a rule without a source is for
	}
	priority, _ := r.number("priority", 1000)
	partial := len(listOf(r.block, "target_tags"))+len(listOf(r.block, "target_service_accounts")) > 0
	for _, key := range []string{"allow", "deny"} {
		rules, _ := r.blocks(key)
		for _, b := range rules {
			protocol, _ := b.text("protocol")
			f.Rules = append(f.Rules, Rule{
				Address: r.address, Allow: key == "allow", Priority: priority, Protocol: protocolOf(protocol),
				From: from, Ports: parseRanges(listOf(b, "ports")), Partial: partial,
			})
		}
	}
}

func listOf(b block, key string) []string {
	list, _ := b.texts(key)
	return list
}

// googleNetwork names the firewall of a rule by the network that it is for.
func (d *document) googleNetwork(r *resource) string {
	if networks, _ := d.named(r, "network", "google_compute_network", "name", "self_link", "id"); len(networks) == 1 {
		return networks[0].address
	}
	if network, _ := r.text("network"); network != "" {
		return "network " + network
	}
	return r.address
}

// googlePolicyRule reads a rule of a firewall policy.
func googlePolicyRule(d *document, r *resource) {
	direction, _ := r.text("direction")
	action, _ := r.text("action")
	if direction == "EGRESS" || r.flag("disabled", no) == yes || action == "goto_next" {
		return
	}
	policy, _ := r.text("firewall_policy")
	if policy == "" {
		policy = r.address
	}
	f := d.firewall("firewall policy " + policy)
	priority, _ := r.number("priority", 0)
	match, have, known := r.first("match")
	if !have || !known || r.pending("match") || r.pending("action") {
		f.Unknown = append(f.Unknown, "rule "+r.address)
	}
	partial := len(listOf(r.block, "target_service_accounts")) > 0 || len(listOf(r.block, "target_resources")) > 0
	protocols, _ := match.blocks("layer4_configs")
	for _, b := range protocols {
		protocol, _ := b.text("ip_protocol")
		f.Rules = append(f.Rules, Rule{
			Address: r.address, Allow: action == "allow", Priority: priority, Protocol: protocolOf(protocol),
			From: listOf(match, "src_ip_ranges"), Ports: parseRanges(listOf(b, "ports")), Partial: partial,
		})
	}
}
