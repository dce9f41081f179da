package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/check/image"
	"github.com/kubeguardian/kubeguardian/check/network"
	"github.com/kubeguardian/kubeguardian/check/node"
	"github.com/kubeguardian/kubeguardian/check/pipeline"
	"github.com/kubeguardian/kubeguardian/check/rbac"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// annotation is how a policy names the control that it defines.
const annotation = "kubeguardian.dev/control"

// An Input is what controls are evaluated over.
type Input struct {
	Inventory  *inventory.Inventory
	Policies   *policy.Set   // define the controls that are judged by policy
	Evidence   *evidence.Set // what was seen outside the API; nil for nothing
	Exceptions []exception.Exception
	Now        time.Time // the zero value is the current time
}

// An evaluation is one input under judgement.
type evaluation struct {
	in        Input
	catalogue *Catalogue
	inv       *inventory.Inventory
	evidence  *evidence.Set               // never nil
	policies  map[string][]*policy.Policy // by control id
	access    *rbac.Access
	images    *image.Images
	pipelines *pipeline.Pipelines
	network   *network.Network
	nodes     *node.View
	exposed   map[finding.Subject]finding.Exposure // of workloads
	worst     map[string]finding.Exposure          // of the workloads of a namespace
	now       time.Time
}

// Evaluate returns the state of every control for every subject of the input,
// in the order of the catalogue and the inventory, with the gain of each
// failure. What cannot be judged is unknown and says why; so is what only
// evidence from elsewhere can show and nobody has given. Failures that a valid
// exception accepts are excepted. For an input without evidence of which no object
// is the subject of a control there is no finding.
//
// The error is for an inventory whose objects are not of their kind's shape,
// and for ctx.
func (c *Catalogue) Evaluate(ctx context.Context, in Input) ([]finding.Finding, error) {
	e, err := newEvaluation(c, in)
	if err != nil {
		return nil, fmt.Errorf("evaluate controls: %w", err)
	}
	judged, err := e.byPolicy(ctx)
	if err != nil {
		return nil, fmt.Errorf("evaluate controls: %w", err)
	}
	w := newWriter(e)
	others := make([][]finding.Finding, len(c.controls))
	for i := range c.controls {
		others[i] = w.findings(&c.controls[i], e.states(&c.controls[i]))
	}
	out := w.all(judged, others)
	if e.evidence.Empty() && !slices.ContainsFunc(out, telling) {
		return nil, ctx.Err()
	}
	c.age(out, e.now)
	if len(in.Exceptions) > 0 {
		out, _ = c.resolver(e.inv, e.now).Resolve(in.Exceptions, out)
	}
	newLedger(c, out).gains()
	return out, ctx.Err()
}

// telling reports whether a finding says more than that nobody has looked at what
// every system has.
func telling(f finding.Finding) bool {
	return f.Status != finding.Unknown || !outside[f.Subject.Kind]
}

// states returns the states of a control that no policy gives.
func (e *evaluation) states(ctl *Control) []finding.Verdict {
	var out []finding.Verdict
	if analyze, ok := checks[ctl.Evaluator]; ok {
		out = analyze(e)
	}
	out = append(out, e.gaps(ctl)...)
	out = append(e.heard(ctl, out), e.unread(ctl)...)
	if len(out) == 0 && !e.subjects(ctl) {
		out = e.elsewhere(ctl)
	}
	return out
}

// subjects reports whether any object is a subject of a control that is judged by
// policy.
func (e *evaluation) subjects(ctl *Control) bool {
	return ctl.Evaluator == byPolicy && ctl.outside() != "" && slices.ContainsFunc(e.inv.Objects(), func(o *inventory.Object) bool {
		return ctl.judges(o.GroupVersionKind().GroupKind(), e.isWorkload(o))
	})
}

func newEvaluation(c *Catalogue, in Input) (*evaluation, error) {
	inv := in.Inventory
	e := &evaluation{
		in: in, catalogue: c, inv: inv, evidence: in.Evidence, now: in.Now,
		policies: map[string][]*policy.Policy{},
		exposed:  map[finding.Subject]finding.Exposure{},
		worst:    map[string]finding.Exposure{},
	}
	if e.now.IsZero() {
		e.now = time.Now().UTC()
	}
	if e.evidence == nil {
		e.evidence = &evidence.Set{}
	}
	if in.Policies != nil {
		for _, p := range in.Policies.Policies() {
			id := p.Annotation(annotation)
			e.policies[id] = append(e.policies[id], p)
		}
	}
	var err error
	if e.access, err = rbac.New(inv); err != nil {
		return nil, err
	}
	if e.network, err = network.New(inv); err != nil {
		return nil, err
	}
	e.nodes = node.New(inv, e.evidence.Nodes, e.now)
	e.images = image.New(inv, e.evidence, e.network.Exposure, e.now)
	e.pipelines = pipeline.New(e.evidence, e.images.Commits(), e.now)
	for _, w := range inv.Workloads() {
		exposure, ns := e.network.Exposure(w), inv.NamespaceOf(w.Object)
		e.exposed[w.Subject()] = exposure
		if worst, have := e.worst[ns]; !have || worse(exposure, worst) {
			e.worst[ns] = exposure
		}
	}
	return e, nil
}

// gaps returns an unknown state for each kind of subject that could not be
// read: nothing is known of objects that were not seen.
func (e *evaluation) gaps(ctl *Control) []finding.Verdict {
	var out []finding.Verdict
	for _, gap := range e.inv.Gaps {
		if ctl.judges(gap.Kind, inventory.IsWorkload(gap.Kind)) {
			out = append(out, finding.Verdict{
				Status: finding.Unknown, Reason: gap.Kind.Kind + " objects could not be read: " + gap.Reason,
				Subject: finding.Subject{APIVersion: gap.Kind.Group, Kind: gap.Kind.Kind},
			})
		}
	}
	return out
}

// judges reports whether objects of a kind are subjects of the control.
func (ctl *Control) judges(gk schema.GroupKind, workload bool) bool {
	return slices.ContainsFunc(ctl.Subjects, func(s string) bool {
		return s == workloads && workload || s == gk.String()
	})
}

// namespace answers policies that ask for the namespace of an object.
func (e *evaluation) namespace(_ context.Context, name string) (*corev1.Namespace, error) {
	o := e.inv.Get("", "Namespace", "", name)
	if o == nil {
		return nil, fmt.Errorf("read namespace %s: it is not in the inventory", name)
	}
	ns := &corev1.Namespace{}
	if err := kruntime.DefaultUnstructuredConverter.FromUnstructured(o.Object, ns); err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
	return ns, nil
}

// exposure says from where a subject can be reached, for all that is known: a
// part of the input that could not be read may open the way to it.
func (e *evaluation) exposure(s finding.Subject) finding.Exposure {
	found := e.reach(s)
	if e.partial() && found == finding.InCluster {
		return finding.ExposureUnknown
	}
	return found
}

// reach says from where a subject can be reached. A workload has its own;
// RBAC objects have the worst of the workloads that they give rights to,
// namespaces and what else is in them the worst of their workloads, and entry
// points stand on the internet. Where no workload is seen, a live inventory
// has none; files may leave it out.
func (e *evaluation) reach(s finding.Subject) finding.Exposure {
	namespace := s.Namespace
	if s.Kind == "Namespace" {
		namespace = s.Name
	}
	s.Container = ""
	if _, ok := outside[s.Kind]; ok {
		return finding.System
	}
	if exposure, ok := e.exposed[s]; ok {
		return exposure
	}
	if network.System(namespace) {
		return finding.System
	}
	unseen := finding.InCluster
	if e.inv.Origin == inventory.Files {
		unseen = finding.ExposureUnknown
	}
	switch s.Kind {
	case "Gateway", "HTTPRoute", "Ingress":
		return finding.Internet
	case "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount":
		holders := e.access.Workloads(s)
		if len(holders) == 0 {
			return unseen
		}
		worst := finding.System
		for _, w := range holders {
			if exposure := e.network.Exposure(w); worse(exposure, worst) {
				worst = exposure
			}
		}
		return worst
	}
	if namespace == "" {
		namespace = corev1.NamespaceDefault
	}
	if exposure, ok := e.worst[namespace]; ok {
		return exposure
	}
	return unseen
}

// worse orders exposures by what they let in.
func worse(a, b finding.Exposure) bool {
	order := []finding.Exposure{finding.System, finding.InCluster, finding.ExposureUnknown, finding.Internet}
	return slices.Index(order, a) > slices.Index(order, b)
}
