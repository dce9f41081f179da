// Package audit judges what is in a cluster by admission policies: which objects
// would be denied, warned about or noted if they were created today.
//
// An [Auditor] remembers what it said of each object. A pass judges what is new
// or has changed since the last one, and whatever is in a namespace that has
// changed, because policies select by its labels; a full pass judges all, which
// is what policies need that look at other objects.
package audit

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// Policies judge a request, as all engines do; see [policy.Set.Evaluate].
type Policies interface {
	Evaluate(ctx context.Context, req policy.Request) ([]finding.Violation, error)
}

// A Violation is an object that a policy would not let pass unsaid.
type Violation struct {
	Subject finding.Subject `json:"subject"`
	finding.Violation
}

// A Failure is an object that could not be judged, and so is not known to be
// right.
type Failure struct {
	Subject finding.Subject `json:"subject"`
	Reason  string          `json:"reason"`
}

// A Summary is what one binding or constraint says of the whole cluster.
type Summary struct {
	Policy      string `json:"policy"`
	Binding     string `json:"binding,omitempty"`
	Enforcement string `json:"enforcement"`
	Objects     int    `json:"objects"` // that violate it
}

// A Result is the state of a cluster after a pass. It shares what it holds with
// the auditor, and is read-only.
type Result struct {
	Objects   int // that there are
	Judged    int // in this pass
	Found     []Found
	Failures  []Failure
	Summaries []Summary // by policy, binding and enforcement
}

// A Found object violates at least one policy.
type Found struct {
	Subject    finding.Subject
	Violations []finding.Violation
}

// Violations yields what was found, object by object, with a number that grows
// and is the same for the same violation of a result.
func (r *Result) Violations() iter.Seq2[int, Violation] {
	return func(yield func(int, Violation) bool) {
		n := 0
		for _, f := range r.Found {
			for _, v := range f.Violations {
				if !yield(n, Violation{f.Subject, v}) {
					return
				}
				n++
			}
		}
	}
}

// An Auditor judges one cluster by one set of policies. Passes run one at a
// time.
type Auditor struct {
	policies   Policies
	mu         sync.Mutex
	known      map[*unstructured.Unstructured]verdict
	namespaces map[string]*unstructured.Unstructured // as they were in the last pass
	details    details
}

// A verdict is what policies said of an object.
type verdict struct {
	violations []finding.Violation
	failure    string
}

// New returns an auditor that has seen nothing.
func New(policies Policies) *Auditor {
	return &Auditor{policies: policies, known: map[*unstructured.Unstructured]verdict{}}
}

// Pass judges the objects of an inventory; those that are the same as in the
// last pass only when it is full. An object is the same when it is the same
// value in memory, as it is from one snapshot of [inventory.Watch] to the next.
// When ctx ends, its error is returned and the next pass begins where this one
// ended.
func (a *Auditor) Pass(ctx context.Context, inv *inventory.Inventory, full bool) (Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	objects := inv.Objects()
	changed := a.changedNamespaces(inv)
	namespaces := &namespaceReader{inv: inv, read: map[string]*corev1.Namespace{}}
	verdicts, judged := make([]verdict, len(objects)), make([]bool, len(objects))
	err := inv.Each(ctx, func(i int, o *inventory.Object) {
		known, ok := a.known[o.Unstructured]
		if ok && !full && !changed[inv.NamespaceOf(o)] {
			verdicts[i] = known
			return
		}
		v := a.judge(ctx, namespaces, o)
		if ctx.Err() == nil { // else it may have been cut
			verdicts[i], judged[i] = v, true
		}
	})
	if err != nil {
		for i, o := range objects {
			if judged[i] {
				a.known[o.Unstructured] = verdicts[i]
			}
		}
		return Result{}, fmt.Errorf("audit the cluster: %w", err)
	}
	a.known = make(map[*unstructured.Unstructured]verdict, len(objects))
	for i, o := range objects {
		a.known[o.Unstructured] = verdicts[i]
	}
	a.namespaces = namespacesOf(inv)
	return result(objects, verdicts, judged), nil
}

func namespacesOf(inv *inventory.Inventory) map[string]*unstructured.Unstructured {
	out := map[string]*unstructured.Unstructured{}
	for _, o := range inv.Kind("", "Namespace") {
		out[o.GetName()] = o.Unstructured
	}
	return out
}

// changedNamespaces returns the namespaces that are not as they were.
func (a *Auditor) changedNamespaces(inv *inventory.Inventory) map[string]bool {
	out := map[string]bool{}
	now := namespacesOf(inv)
	for name, o := range now {
		if a.namespaces[name] != o {
			out[name] = true
		}
	}
	for name := range a.namespaces {
		if now[name] == nil {
			out[name] = true
		}
	}
	return out
}

// judge asks the policies about creating an object as it is.
func (a *Auditor) judge(ctx context.Context, namespaces policy.Namespaces, o *inventory.Object) verdict {
	req, err := request(o)
	if err != nil {
		return verdict{failure: err.Error()}
	}
	req.Namespaces = namespaces
	violations, err := a.policies.Evaluate(ctx, req)
	a.details.share(violations)
	if err != nil {
		return verdict{violations: violations, failure: err.Error()}
	}
	return verdict{violations: violations}
}

// details lets equal details of violations be one: most of them name one of a few
// fields, and a map takes much more than its text.
type details struct {
	mu    sync.Mutex
	known map[string]map[string]string
}

// maxDetails bounds what is remembered of details that never come twice.
const maxDetails = 4096

func (d *details) share(violations []finding.Violation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range violations {
		v := &violations[i]
		if len(v.Details) == 0 {
			continue
		}
		var text []byte
		for _, name := range slices.Sorted(maps.Keys(v.Details)) {
			text = fmt.Appendf(text, "%q %q ", name, v.Details[name])
		}
		if known, ok := d.known[string(text)]; ok {
			v.Details = known
			continue
		}
		if d.known == nil || len(d.known) >= maxDetails {
			d.known = map[string]map[string]string{}
		}
		d.known[string(text)] = v.Details
	}
}

// request makes the request to create an object. What an API server returned as
// its Go type needs no conversion.
func request(o *inventory.Object) (policy.Request, error) {
	if o.Normal {
		return policy.NewNormalCreateRequest(o.Unstructured), nil
	}
	return policy.NewCreateRequest(o.Unstructured)
}

// A namespaceReader reads each namespace of an inventory once.
type namespaceReader struct {
	inv  *inventory.Inventory
	mu   sync.Mutex
	read map[string]*corev1.Namespace
}

// Namespace implements [policy.Namespaces].
func (r *namespaceReader) Namespace(_ context.Context, name string) (*corev1.Namespace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ns := r.read[name]; ns != nil {
		return ns, nil
	}
	o := r.inv.Get("", "Namespace", "", name)
	if o == nil {
		return nil, fmt.Errorf("read namespace %s: it is not in the inventory", name)
	}
	ns := &corev1.Namespace{}
	if err := kruntime.DefaultUnstructuredConverter.FromUnstructured(o.Object, ns); err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
	r.read[name] = ns
	return ns, nil
}

func result(objects []*inventory.Object, verdicts []verdict, judged []bool) Result {
	out := Result{Objects: len(objects)}
	counts := map[Summary]int{}
	for i, o := range objects {
		if judged[i] {
			out.Judged++
		}
		v := verdicts[i]
		if v.failure != "" {
			out.Failures = append(out.Failures, Failure{o.Subject(), v.failure})
		}
		if len(v.violations) > 0 {
			out.Found = append(out.Found, Found{o.Subject(), v.violations})
		}
		violated := map[Summary]bool{}
		for _, violation := range v.violations {
			violated[Summary{Policy: violation.Policy, Binding: violation.Binding, Enforcement: violation.Enforcement}] = true
		}
		for s := range violated {
			counts[s]++
		}
	}
	out.Summaries = make([]Summary, 0, len(counts))
	for s, n := range counts {
		s.Objects = n
		out.Summaries = append(out.Summaries, s)
	}
	slices.SortFunc(out.Summaries, func(a, b Summary) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Binding, b.Binding), cmp.Compare(a.Enforcement, b.Enforcement))
	})
	return out
}
