// Package terraform reads what a Terraform plan or state says of a cloud, as
// terraform show -json prints it, reduced to what checks ask for.
//
// What is known only after apply stays unknown. What a configuration does not
// set has the provider's default.
package terraform

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/kubeguardian/kubeguardian/fact"
)

// maxResources bounds a document.
const maxResources = 20_000

// A Plan is what a plan or state says, all modules together. Addresses are
// Terraform's, as "module.net.aws_security_group.web".
type Plan struct {
	State       bool      // what is there, else what will be
	Time        time.Time // of the plan; a state has none
	Version     string    // of Terraform
	Resources   int
	Kinds       []string // of resources, in the order of their names
	Firewalls   []Firewall
	Clusters    []Cluster
	EntryPoints []EntryPoint
	Machines    []Machine
	Identities  []Identity
	Volumes     []Volume
	Backups     []Backup
}

// The facts, under short names.
const (
	unknown = fact.Unknown
	no      = fact.No
	yes     = fact.Yes
)

// A Firewall is a list of rules on inbound traffic. What no rule allows is
// refused.
type Firewall struct {
	Address string
	Rules   []Rule
	// Stateless lists see answers too, and let them in by wide ranges of ports.
	Stateless bool
	Unknown   []string // what of it is known only after apply

	pending bool // whether rules stand in the resource itself is not known
}

// A Rule allows or refuses inbound traffic. Of two rules the one with the
// smaller priority decides, and of equals the one that refuses.
type Rule struct {
	Address  string // of the resource that holds it
	Allow    bool
	Priority int
	Protocol string   // tcp, udp; "" for all
	From     []string // CIDR blocks
	Ports    []Range  // none for all
	Partial  bool     // it is for some of the machines only
}

// A Range is of ports, both ends included.
type Range struct{ First, Last int }

// A Cluster is a managed Kubernetes cluster.
type Cluster struct {
	Address string
	// Public says whether the API endpoint has a public address; From is who may
	// use it, as CIDR blocks.
	Public           fact.Fact
	From             []string
	Unknown          []string // what of Public and From is known only after apply
	WorkloadIdentity fact.Fact
	SecretEncryption fact.Fact // by a key of one's own
	AuditLog         fact.Fact // leaves the control plane
	ContainerLog     fact.Fact // leaves the nodes by a means of the cloud
	LogDays          int       // that logs are kept: 0 not known, Forever
}

// Forever is the retention of what is never deleted.
const Forever = -1

// An EntryPoint takes HTTP requests from outside.
type EntryPoint struct {
	Address  string
	Public   fact.Fact
	WAF      fact.Fact // a web application firewall stands in front
	Blocking fact.Fact // and it refuses requests, rather than count them
	Firewall string    // its address
}

// A Machine is a kind of node, by what makes them.
type Machine struct {
	Address  string
	Metadata fact.Fact // pods reach the instance metadata
	Why      string    // what says so
}

// An Identity is what nodes are to the cloud.
type Identity struct {
	Address string
	Broad   []string // grants that are far more than a node needs
	Unknown []string
}

// A Volume is a disk.
type Volume struct {
	Address   string
	Encrypted fact.Fact
}

// A Backup is a schedule by which a cluster is saved.
type Backup struct {
	Address string
	Paused  fact.Fact
}

// Read reads a plan or a state. A state does not say when it was seen: whoever
// prints it may add that, as seenAt.
func Read(data []byte) (*Plan, error) {
	var head struct {
		Values json.RawMessage `json:"values"`
		Plan   json.RawMessage `json:"planned_values"`
		SeenAt time.Time       `json:"seenAt"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("read Terraform document: %w", err)
	}
	if head.Values == nil || head.Plan != nil {
		return readPlan(data)
	}
	plan, err := readState(data)
	if plan != nil {
		plan.Time = head.SeenAt
	}
	return plan, err
}

func readState(data []byte) (*Plan, error) {
	var state tfjson.State
	if err := state.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("read Terraform state: %w", err)
	}
	d := &document{plan: &Plan{State: true, Version: state.TerraformVersion}}
	if err := d.collect(state.Values); err != nil {
		return nil, fmt.Errorf("read Terraform state: %w", err)
	}
	return d.reduce(), nil
}

func readPlan(data []byte) (*Plan, error) {
	var plan tfjson.Plan
	if err := plan.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("read Terraform plan: %w", err)
	}
	d := &document{plan: &Plan{Version: plan.TerraformVersion}, config: newConfiguration(plan.Config)}
	if plan.Timestamp != "" {
		at, err := time.Parse(time.RFC3339, plan.Timestamp)
		if err != nil {
			return nil, fmt.Errorf("read Terraform plan: timestamp %q is not a time", plan.Timestamp)
		}
		d.plan.Time = at.UTC()
	}
	d.unknown = map[string]any{}
	for _, change := range plan.ResourceChanges {
		if change != nil && change.Change != nil {
			d.unknown[change.Address] = change.Change.AfterUnknown
		}
	}
	if err := d.collect(plan.PlannedValues); err != nil {
		return nil, fmt.Errorf("read Terraform plan: %w", err)
	}
	return d.reduce(), nil
}

// A document is a plan or state being read.
type document struct {
	plan      *Plan
	config    *configuration // nil for a state
	unknown   map[string]any // by address
	resources []*resource
	byType    map[string][]*resource
	byPlain   map[string][]*resource // by address without indexes
	followed  map[reference][]*resource
	firewalls map[string]*Firewall
}

// A resource is one managed resource of a document.
type resource struct {
	block
	address string // with the indexes of instances
	kind    string
	module  string // address of its module; "" for the root
	name    string // kind.name, as the configuration has it
}

// collect takes the managed resources of all modules.
func (d *document) collect(values *tfjson.StateValues) error {
	d.byType, d.byPlain, d.firewalls = map[string][]*resource{}, map[string][]*resource{}, map[string]*Firewall{}
	d.followed = map[reference][]*resource{}
	if values == nil {
		return nil
	}
	return d.module(values.RootModule)
}

func (d *document) module(m *tfjson.StateModule) error {
	if m == nil {
		return nil
	}
	for _, r := range m.Resources {
		if r == nil || r.Mode != tfjson.ManagedResourceMode || r.DeposedKey != "" {
			continue
		}
		if len(d.resources) == maxResources {
			return fmt.Errorf("more than %d resources", maxResources)
		}
		of := &resource{address: r.Address, kind: r.Type, module: m.Address, name: r.Type + "." + r.Name}
		of.block = block{values: r.AttributeValues, unknown: d.unknown[r.Address], written: d.config.writtenOf(of)}
		d.resources = append(d.resources, of)
		d.byType[r.Type] = append(d.byType[r.Type], of)
		d.byPlain[plain(r.Address)] = append(d.byPlain[plain(r.Address)], of)
	}
	for _, child := range m.ChildModules {
		if err := d.module(child); err != nil {
			return err
		}
	}
	return nil
}

// reduce turns resources into what checks ask for, in the order of addresses.
func (d *document) reduce() *Plan {
	slices.SortStableFunc(d.resources, func(a, b *resource) int { return strings.Compare(a.address, b.address) })
	for _, r := range d.resources {
		if read, ok := readers[r.kind]; ok {
			read(d, r)
		}
	}
	d.plan.Resources = len(d.resources)
	d.plan.Kinds = slices.Sorted(maps.Keys(d.byType))
	for _, f := range d.firewalls {
		if f.pending && len(f.Rules) == 0 {
			f.Unknown = append(f.Unknown, "its rules")
		}
		d.plan.Firewalls = append(d.plan.Firewalls, *f)
	}
	slices.SortFunc(d.plan.Firewalls, func(a, b Firewall) int { return strings.Compare(a.Address, b.Address) })
	return d.plan
}

// firewall returns the firewall of an address, which rules of other resources
// may have made already.
func (d *document) firewall(address string) *Firewall {
	f := d.firewalls[address]
	if f == nil {
		f = &Firewall{Address: address}
		d.firewalls[address] = f
	}
	return f
}

// readers say how each type of resource is read; what is not here is left out.
var readers = map[string]func(*document, *resource){
	"aws_alb":                                     awsLoadBalancer,
	"aws_backup_plan":                             backup,
	"aws_cloudfront_distribution":                 awsDistribution,
	"aws_default_network_acl":                     awsACL,
	"aws_default_security_group":                  awsSecurityGroup,
	"aws_ebs_volume":                              awsVolume,
	"aws_eks_cluster":                             awsCluster,
	"aws_eks_node_group":                          awsNodeGroup,
	"aws_iam_role":                                awsRole,
	"aws_launch_configuration":                    awsLaunch,
	"aws_launch_template":                         awsLaunch,
	"aws_lb":                                      awsLoadBalancer,
	"aws_network_acl":                             awsACL,
	"aws_network_acl_rule":                        awsACLRule,
	"aws_security_group":                          awsSecurityGroup,
	"aws_security_group_rule":                     awsGroupRule,
	"aws_vpc_security_group_ingress_rule":         awsIngressRule,
	"azurerm_application_gateway":                 azureGateway,
	"azurerm_cdn_frontdoor_endpoint":              azureFrontDoor,
	"azurerm_kubernetes_cluster":                  azureCluster,
	"azurerm_managed_disk":                        azureDisk,
	"azurerm_network_security_group":              azureGroup,
	"azurerm_network_security_rule":               azureRule,
	"google_compute_backend_service":              googleBackend,
	"google_compute_disk":                         googleDisk,
	"google_compute_firewall":                     googleFirewall,
	"google_compute_firewall_policy_rule":         googlePolicyRule,
	"google_compute_network_firewall_policy_rule": googlePolicyRule,
	"google_container_cluster":                    googleCluster,
	"google_container_node_pool":                  googlePool,
	"google_gke_backup_backup_plan":               backup,

	"azurerm_data_protection_backup_instance_kubernetes_cluster": backup,
}

func backup(d *document, r *resource) {
	b := Backup{Address: r.address, Paused: no}
	if schedule, _ := r.blocks("backup_schedule"); len(schedule) > 0 {
		b.Paused = schedule[0].flag("paused", no)
	}
	d.plan.Backups = append(d.plan.Backups, b)
}

// Is reports whether the keys of a document are those of a plan or state.
func Is(has func(keys ...string) bool) bool {
	return has("format_version") && (has("planned_values") || has("values"))
}
