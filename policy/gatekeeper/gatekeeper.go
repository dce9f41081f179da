// Package gatekeeper loads and evaluates Gatekeeper's ConstraintTemplates and
// constraints, unmodified, in an engine of its own around the Open Policy Agent
// and the CEL libraries of Kubernetes.
//
// [Load] turns files into an immutable [Set]: templates are parsed, compiled and
// checked, constraints are validated and defaulted by the schema of their
// template, and everything that does not depend on a request is made ready.
// (*Set).Evaluate then judges one admission request by all constraints.
//
// # Speed
//
// An index finds the constraints that may match by kind and namespace. A request
// becomes a Rego value once, and that only if a constraint in Rego matches;
// constraints share it. What the rules of a template say of the request alone,
// whatever the parameters, is evaluated once for all constraints of the template,
// and so are constraints with equal parameters. Functions that depend on their
// arguments alone, such as one that reads a quantity, are kept beyond the request:
// 4096 values of each template. Nothing else is remembered of a request.
//
// The rules themselves run by a plan (package plan). What has no plan, and what a
// plan fails for, the Open Policy Agent decides.
//
// # Where it differs from Gatekeeper
//
// Mistakes are found at load: an unknown enforcement action, a CEL expression
// that does not compile, a default that its schema refuses. Built-ins of Rego
// that reach the network, the file system or the environment do not compile;
// external_data does, see package externaldata. A message that is not text is a
// violation of its constraint, not an error of the whole review. An object is in
// the namespace that the request names, also when nobody knows that namespace. On
// DELETE, Rego sees the object whether or not there are templates in CEL.
package gatekeeper

import (
	"iter"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/policy/deadline"
	"github.com/kubeguardian/kubeguardian/policy/externaldata"
	"github.com/kubeguardian/kubeguardian/policy/referential"
)

// The API groups of the documents.
const (
	templateGroup   = "templates.gatekeeper.sh"
	constraintGroup = "constraints.gatekeeper.sh"
	configGroup     = "config.gatekeeper.sh"
	syncSetGroup    = "syncset.gatekeeper.sh"
	expansionGroup  = "expansion.gatekeeper.sh"
)

// target is the only one that templates for Kubernetes name.
const target = "admission.k8s.gatekeeper.sh"

// Handles reports whether [Load] takes documents of a kind: templates,
// constraints, ExpansionTemplate, Config and SyncSet.
func Handles(kind schema.GroupVersionKind) bool {
	switch kind.Group {
	case templateGroup:
		return kind.Kind == "ConstraintTemplate"
	case expansionGroup:
		return kind.Kind == "ExpansionTemplate"
	case configGroup:
		return kind.Kind == "Config"
	case syncSetGroup:
		return kind.Kind == "SyncSet"
	}
	return kind.Group == constraintGroup
}

// A Point is where a request is judged. Constraints with scoped enforcement
// actions name the points at which they act, and how.
type Point string

// The enforcement points. Native ValidatingAdmissionPolicies, vap.k8s.io, are
// none of ours.
const (
	Webhook Point = "validation.gatekeeper.sh"
	Audit   Point = "audit.gatekeeper.sh"
	Gator   Point = "gator.gatekeeper.sh" // tests of policies
)

// mutation is what Config calls the webhook that mutates; nothing is judged there.
const mutation Point = "mutation-webhook"

// points lists the enforcement points.
func points() []Point { return []Point{Webhook, Audit, Gator} }

// A Set is an immutable collection of constraints with their templates. It is
// safe for concurrent use.
type Set struct {
	*compiled
	point     Point
	inventory *referential.Inventory
	served    bool // operations are those of WebhookRules
	providers *externaldata.Client
	mutator   Mutator // of what others make; nil changes nothing
}

// compiled is what a set has in common with its variants.
type compiled struct {
	templates   []*template
	constraints []*constraint // by template, then name
	index       index
	excluded    map[Point][]wildcard // namespaces, by Config
	synced      []schema.GroupVersionKind
	expansions  []*expansion
	pool        *deadline.Pool
}

// At returns a set that judges at another point. Load returns one that judges
// at [Webhook].
func (s *Set) At(point Point) *Set {
	variant := *s
	variant.point = point
	return &variant
}

// Enforced tells what each constraint does about violations at the point at which
// the set judges.
func (s *Set) Enforced(tell func(policy, binding, enforcement string)) {
	for _, c := range s.constraints {
		for _, action := range c.actions[s.point] {
			tell(c.template.kind, c.name, action)
		}
	}
}

// WithInventory returns a set whose policies see these objects as
// data.inventory. Without one they see none.
func (s *Set) WithInventory(inventory *referential.Inventory) *Set {
	variant := *s
	variant.inventory = inventory
	return &variant
}

// WithInventoryOf returns a set whose policies see the inventory of another one.
func (s *Set) WithInventoryOf(other *Set) *Set { return s.WithInventory(other.inventory) }

// WithChanges returns a set whose policies see the inventory of this one with
// changes, see [referential.Inventory.With].
func (s *Set) WithChanges(changed, removed iter.Seq[*unstructured.Unstructured]) (*Set, error) {
	inventory, err := s.inventory.With(changed, removed)
	if err != nil {
		return nil, err
	}
	return s.WithInventory(inventory), nil
}

// Len returns the number of constraints.
func (s *Set) Len() int { return len(s.constraints) }

// Synced returns the kinds that Config and SyncSet documents want in the
// inventory, each once.
func (s *Set) Synced() []schema.GroupVersionKind { return slices.Clone(s.synced) }
