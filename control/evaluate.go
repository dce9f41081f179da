package control

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	states := make([][]finding.Finding, len(c.controls))
	if err := e.byPolicy(ctx, states); err != nil {
		return nil, fmt.Errorf("evaluate controls: %w", err)
	}
	var out []finding.Finding
	for i := range c.controls {
		ctl := &c.controls[i]
		if analyze, ok := checks[ctl.Evaluator]; ok {
			states[i] = analyze(e)
		}
		states[i] = append(states[i], e.gaps(ctl)...)
		states[i] = e.heard(ctl, states[i])
		if len(states[i]) == 0 {
			states[i] = e.elsewhere(ctl)
		}
		for _, f := range states[i] {
			out = append(out, e.settle(e.complete(ctl, f)))
		}
		states[i] = nil
	}
	if e.evidence.Empty() && !slices.ContainsFunc(out, judged) {
		return nil, ctx.Err()
	}
	out, _ = c.resolver(e.inv, e.now).Resolve(in.Exceptions, c.Aged(out, e.now))
	newLedger(c, out).gains()
	return out, ctx.Err()
}

// judged reports whether a finding says more than that nobody has looked at what
// every system has.
func judged(f finding.Finding) bool {
	return f.Status != finding.Unknown || !outside[f.Subject.Kind]
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

// complete adds to a verdict what is the same for all verdicts of a control. A
// check that judges by evidence has given its kind and time, and may have given
// the exposure.
func (e *evaluation) complete(ctl *Control, f finding.Finding) finding.Finding {
	f.Control, f.Title, f.Level, f.Severity = ctl.ID, ctl.Title, ctl.Level, ctl.Severity
	f.Frameworks = ctl.Frameworks
	if f.EvidenceKind == "" {
		f.EvidenceKind, f.ObservedAt = string(ctl.Evidence[0]), e.now
	}
	if f.Status == finding.Fail {
		f.Fix = ctl.Fix.Text
	}
	if f.Exposure == "" {
		f.Exposure = e.exposure(f.Subject)
	}
	return f
}

// gaps returns an unknown state for each kind of subject that could not be
// read: nothing is known of objects that were not seen.
func (e *evaluation) gaps(ctl *Control) []finding.Finding {
	var out []finding.Finding
	for _, gap := range e.inv.Gaps {
		if ctl.judges(gap.Kind, inventory.IsWorkload(gap.Kind)) {
			out = append(out, finding.Finding{
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

// byPolicy judges every object by the policies of the controls that it is a
// subject of, and adds the verdicts to the states of each control. The objects
// are shared out among the processors; their order is kept.
func (e *evaluation) byPolicy(ctx context.Context, states [][]finding.Finding) error {
	objects, verdicts := e.inv.Objects(), make([][]verdict, len(e.inv.Objects()))
	var next atomic.Int64
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(objects) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				verdicts[i] = e.object(ctx, objects[i])
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, of := range verdicts {
		for _, v := range of {
			states[v.control] = append(states[v.control], v.finding)
		}
	}
	return nil
}

// A verdict is the state of one control, by its place in the catalogue.
type verdict struct {
	control int
	finding finding.Finding
}

func (e *evaluation) object(ctx context.Context, o *inventory.Object) []verdict {
	var out []verdict
	var req policy.Request
	var unreadable error
	gk := o.GroupVersionKind().GroupKind()
	w := e.inv.Owner(o)
	for i := range e.catalogue.controls {
		ctl := &e.catalogue.controls[i]
		if ctl.Evaluator != byPolicy || !ctl.judges(gk, w != nil && w.Object == o) {
			continue
		}
		if len(out) == 0 {
			req, unreadable = policy.NewCreateRequest(o.Unstructured)
			req.Namespaces = policy.NamespacesFunc(e.namespace)
		}
		var f state
		if unreadable != nil {
			f = unknown("%v", unreadable)
		} else {
			f = e.judge(ctx, ctl, o, req)
		}
		f.Subject = o.Subject()
		f.Subject.Container = f.container
		out = append(out, verdict{i, f.Finding})
	}
	return out
}

// A state is a finding, and the containers that it speaks of.
type state struct {
	finding.Finding
	container string
}

func unknown(format string, args ...any) state {
	return state{Finding: finding.Finding{Status: finding.Unknown, Reason: fmt.Sprintf(format, args...)}}
}

func notApplicable(reason string) state {
	return state{Finding: finding.Finding{Status: finding.NotApplicable, Reason: reason}}
}

// judge asks the policies of a control about an object. One that fails decides;
// one that cannot be evaluated leaves the control unknown.
func (e *evaluation) judge(ctx context.Context, ctl *Control, o *inventory.Object, req policy.Request) state {
	policies := e.policies[ctl.ID]
	if len(policies) == 0 {
		return unknown("no policy with annotation %s: %s is loaded", annotation, ctl.ID)
	}
	if strings.HasSuffix(o.GetKind(), "Role") && e.access.BuiltIn(o) {
		return notApplicable(rbac.BuiltInReason)
	}
	applied := false
	var names, messages []string
	var broken error
	failed := state{Finding: finding.Finding{Status: finding.Fail}}
	for _, p := range policies {
		applies, violations, err := p.Check(ctx, req)
		if err != nil {
			broken = err
			continue
		}
		applied = applied || applies
		for _, v := range violations {
			names, messages = append(names, v.Policy), append(messages, v.Message)
			failed.container = v.Details["containers"]
		}
	}
	switch {
	case len(messages) > 0:
		failed.Message = strings.Join(slices.Compact(messages), "; ")
		failed.Evidence = "policy " + strings.Join(slices.Compact(names), ", ")
		return e.excuse(ctl, o, failed)
	case broken != nil:
		return unknown("%v", broken)
	case applied:
		return state{Finding: finding.Finding{Status: finding.Pass}}
	}
	return notApplicable(cmp.Or(ctl.NotApplicable, "the policy does not match this object"))
}

// excuse turns a failure into a pass where another object makes up for it.
func (e *evaluation) excuse(ctl *Control, o *inventory.Object, failed state) state {
	find, ok := excuses[ctl.Unless]
	if !ok {
		return failed
	}
	by := find(e.inv, e.inv.NamespaceOf(o))
	if by == nil {
		return failed
	}
	return state{Finding: finding.Finding{Status: finding.Pass, Evidence: by.Subject().String() + " makes up for it"}}
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

// exposure says from where a subject can be reached. A workload has its own;
// RBAC objects have the worst of the workloads that they give rights to,
// namespaces and what else is in them the worst of their workloads, and entry
// points stand on the internet. Where no workload is seen, a live inventory
// has none; files may leave it out.
func (e *evaluation) exposure(s finding.Subject) finding.Exposure {
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
