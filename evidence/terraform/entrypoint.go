package terraform

import (
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/fact"
)

func awsLoadBalancer(d *document, r *resource) {
	if kind, known := r.text("load_balancer_type"); known && kind != "" && kind != "application" {
		return // not of HTTP
	}
	e := EntryPoint{Address: r.address, Public: r.flag("internal", no).Not(), WAF: no, Blocking: no}
	for _, a := range d.byType["aws_wafv2_web_acl_association"] {
		targets, known := d.named(a, "resource_arn", r.kind, "arn")
		if slices.Contains(targets, r) {
			d.awsProtect(&e, a, "web_acl_arn")
			break
		}
		if !known && e.WAF == no && !d.others(a, r) {
			e.WAF, e.Blocking = unknown, unknown
		}
	}
	d.plan.EntryPoints = append(d.plan.EntryPoints, e)
}

// others reports whether an association is known to be of another resource.
func (d *document) others(a, than *resource) bool {
	for _, kind := range []string{"aws_lb", "aws_alb", "aws_api_gateway_stage", "aws_apprunner_service", "aws_cognito_user_pool"} {
		if found := d.refers(a, "resource_arn", kind); len(found) > 0 && !slices.Contains(found, than) {
			return true
		}
	}
	return false
}

func awsDistribution(d *document, r *resource) {
	e := EntryPoint{Address: r.address, Public: r.flag("enabled", yes), WAF: no, Blocking: no}
	if r.given("web_acl_id") {
		d.awsProtect(&e, r, "web_acl_id")
	}
	d.plan.EntryPoints = append(d.plan.EntryPoints, e)
}

// awsProtect notes the web ACL that an attribute names.
func (d *document) awsProtect(e *EntryPoint, r *resource, key string) {
	e.WAF, e.Blocking = yes, unknown
	lists, _ := d.named(r, key, "aws_wafv2_web_acl", "arn", "id")
	if len(lists) != 1 {
		return
	}
	e.Firewall, e.Blocking = lists[0].address, awsBlocks(lists[0])
}

// awsBlocks says whether some rule of a web ACL refuses requests.
func awsBlocks(acl *resource) fact.Fact {
	if action, have, _ := acl.first("default_action"); have && action.present("block") == yes {
		return yes
	}
	rules, known := acl.blocks("rule")
	for _, rule := range rules {
		action, _, _ := rule.first("action")
		override, _, _ := rule.first("override_action")
		if action.present("block") == yes || action.present("captcha") == yes || action.present("challenge") == yes || override.present("none") == yes {
			return yes
		}
	}
	if !known || acl.pending("rule") || acl.given("rule_json") {
		return unknown
	}
	return no
}

func azureGateway(d *document, r *resource) {
	e := EntryPoint{Address: r.address, Public: azurePublic(r), WAF: no, Blocking: no}
	sku, _, _ := r.first("sku")
	tier, known := sku.text("tier")
	switch {
	case r.given("firewall_policy_id"):
		d.azureProtect(&e, d.azurePolicies(r, "firewall_policy_id", "azurerm_web_application_firewall_policy"))
	case !known:
		e.WAF, e.Blocking = unknown, unknown
	case strings.HasPrefix(tier, "WAF"):
		config, _, _ := r.first("waf_configuration")
		e.WAF = config.flag("enabled", no)
		mode, known := config.text("firewall_mode")
		e.Blocking = e.WAF.And(has([]string{mode}, known, "Prevention"))
	}
	d.plan.EntryPoints = append(d.plan.EntryPoints, e)
}

// azurePublic says whether a gateway has a public address.
func azurePublic(r *resource) fact.Fact {
	fronts, known := r.blocks("frontend_ip_configuration")
	for _, f := range fronts {
		if f.given("public_ip_address_id") {
			return yes
		}
	}
	if !known {
		return unknown
	}
	return no
}

func (d *document) azurePolicies(r *resource, key, kind string) []*resource {
	policies, _ := d.named(r, key, kind, "id")
	return policies
}

// azureProtect notes the policy of a web application firewall.
func (d *document) azureProtect(e *EntryPoint, policies []*resource) {
	e.WAF, e.Blocking = yes, unknown
	if len(policies) != 1 {
		return
	}
	policy := policies[0]
	settings := policy.block
	if inner, have, _ := policy.first("policy_settings"); have {
		settings = inner
	}
	mode, known := settings.text("mode")
	if mode == "" && known {
		mode = "Prevention" // the default
	}
	e.Firewall = policy.address
	e.Blocking = settings.flag("enabled", yes).And(has([]string{mode}, known, "Prevention"))
}

// azureFrontDoor reads an endpoint of Front Door; a security policy ties a
// firewall to its domains.
func azureFrontDoor(d *document, r *resource) {
	e := EntryPoint{Address: r.address, Public: r.flag("enabled", yes), WAF: no, Blocking: no}
	for _, policy := range d.byType["azurerm_cdn_frontdoor_security_policy"] {
		if slices.Contains(d.refers(policy, "security_policies", r.kind), r) {
			d.azureProtect(&e, d.refers(policy, "security_policies", "azurerm_cdn_frontdoor_firewall_policy"))
			break
		}
		e.WAF, e.Blocking = unknown, unknown // it may be for this one
	}
	d.plan.EntryPoints = append(d.plan.EntryPoints, e)
}

func googleBackend(d *document, r *resource) {
	scheme, known := r.text("load_balancing_scheme")
	protocol, _ := r.text("protocol")
	if !slices.Contains([]string{"", "HTTP", "HTTPS", "HTTP2", "H2C", "GRPC"}, protocol) {
		return
	}
	e := EntryPoint{Address: r.address, WAF: no, Blocking: no}
	switch {
	case !known:
	case scheme == "" || strings.HasPrefix(scheme, "EXTERNAL"):
		e.Public = yes
	default:
		e.Public = no
	}
	if r.given("security_policy") {
		e.WAF, e.Blocking = yes, unknown
		policies, _ := d.named(r, "security_policy", "google_compute_security_policy", "id", "self_link", "name")
		if len(policies) == 1 {
			e.Firewall, e.Blocking = policies[0].address, d.googleBlocks(policies[0])
		}
	}
	d.plan.EntryPoints = append(d.plan.EntryPoints, e)
}

// googleBlocks says whether a rule of a Cloud Armor policy refuses requests.
func (d *document) googleBlocks(policy *resource) fact.Fact {
	rules, known := policy.blocks("rule")
	for _, r := range d.byType["google_compute_security_policy_rule"] {
		if of, _ := d.named(r, "security_policy", policy.kind, "name", "id"); slices.Contains(of, policy) {
			rules = append(rules, r.block)
		}
	}
	for _, rule := range rules {
		action, _ := rule.text("action")
		refuses := strings.HasPrefix(action, "deny") || action == "throttle" || action == "rate_based_ban"
		if refuses && rule.flag("preview", no) == no {
			return yes
		}
	}
	if !known || policy.pending("rule") {
		return unknown
	}
	return no
}
