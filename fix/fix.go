// Package fix repairs manifests: it changes the text of the user's own files so
// that controls pass, and proves each change before it is offered.
//
// A change is proven when the documents, read again, differ in nothing but what
// it names; when the control passes for its subject; and when no other finding
// gets worse. Where a cluster is at hand, its API server must accept the object
// as well. What cannot be proven is not offered, and says why.
package fix

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/fix/edit"
	"github.com/kubeguardian/kubeguardian/fix/isolate"
	"github.com/kubeguardian/kubeguardian/inventory"
	"github.com/kubeguardian/kubeguardian/policy"
)

// An Input is what is to be repaired, and by what it is judged.
type Input struct {
	Paths      []string  // files and folders; or only "-", for Stdin
	Stdin      io.Reader // may be nil if no path is "-"
	Catalogue  *control.Catalogue
	Policies   *policy.Set
	Evidence   *evidence.Set         // nil for none
	Exceptions []exception.Exception // what they accept is left as it is
	Now        time.Time             // the zero value is the current time
	Controls   []string              // ids; none for all

	// DryRun asks a cluster whether it would take an object; nil for no cluster.
	DryRun DryRunner
}

// A Change is a repair of one subject that is proven.
type Change struct {
	Control string
	Subject finding.Subject
	What    []string // "set spec.hostPID to false"
}

// A Refusal is a repair that is not offered, and why.
type Refusal struct {
	Control string
	Subject finding.Subject
	Reason  string
}

// Manual is what a person must do for one control.
type Manual struct {
	Control  string
	Text     string
	Value    bool // all that is missing is a value or a choice
	Subjects []finding.Subject
}

// A Plan is what is offered, with its proof.
type Plan struct {
	Files         []File // that change, by name
	Changes       []Change
	Refused       []Refusal
	Manual        []Manual
	Networks      []isolate.Proposal // the namespaces that are closed
	Appeared      []finding.Finding  // that did not apply before, and now are not met
	Before, After control.Score
	Proven        int     // objects that the API server accepted; 0 without a cluster
	Denied        []error // one for each changed object that it does not take
	Stdin         []byte  // standard input, if that was read

	paths []string
}

// maxRounds bounds how often changes are proven anew without those that were
// refused.
const maxRounds = 8

// Propose reads manifests and returns the changes that make controls pass.
// Nothing is written: see [Plan.Write].
func Propose(ctx context.Context, in Input) (*Plan, error) {
	if in.Now.IsZero() {
		in.Now = time.Now().UTC()
	}
	j, err := newJob(ctx, in)
	if err != nil {
		return nil, err
	}
	before, err := j.evaluate(ctx, j.inv)
	if err != nil {
		return nil, err
	}
	if err := j.choose(before); err != nil {
		return nil, err
	}
	for round := 0; ; round++ {
		if round == maxRounds {
			j.refuseAll("it could not be proven together with the other changes")
		}
		inv, err := j.rewrite(ctx)
		if err != nil {
			return nil, err
		}
		after, err := j.evaluate(ctx, inv)
		if err != nil {
			return nil, err
		}
		if j.prove(before, after) && j.accepted(ctx) || round == maxRounds {
			return j.plan(before, after), nil
		}
	}
}

func (j *job) evaluate(ctx context.Context, inv *inventory.Inventory) ([]finding.Finding, error) {
	return j.in.Catalogue.Evaluate(ctx, control.Input{
		Inventory: inv, Policies: j.in.Policies, Evidence: j.in.Evidence, Exceptions: j.in.Exceptions, Now: j.in.Now,
	})
}

// A job is one input under repair.
type job struct {
	in         Input
	inv        *inventory.Inventory
	sources    map[string]*source             // by name
	objects    map[*inventory.Object]*located // that were looked up
	candidates []*candidate
	controls   map[string]*control.Control // by id
	manual     []Manual
	pins       map[string]string // digests by image reference
	networks   []isolate.Proposal
	added      []*source // files that are new
	appeared   []finding.Finding
	proven     int
	denied     []error
}

// A candidate is a failed control of one subject that may be repaired.
type candidate struct {
	finding  finding.Finding
	control  *control.Control
	objects  []*inventory.Object // that it may change
	network  string              // the namespace whose policies it wants, or ""
	workload *inventory.Workload // nil for a namespace
	what     []string
	refused  string
	value    bool // refused for want of a value
}

func (c *candidate) refuse(format string, args ...any) {
	if c.refused == "" {
		c.refused = fmt.Sprintf(format, args...)
	}
}

// choose turns findings into candidates and into work for people.
func (j *job) choose(before []finding.Finding) error {
	j.controls = map[string]*control.Control{}
	for _, ctl := range j.in.Catalogue.Controls() {
		j.controls[ctl.ID] = &ctl
	}
	for _, id := range j.in.Controls {
		if j.controls[id] == nil {
			return fmt.Errorf("unknown control %q", id)
		}
	}
	bySubject := map[finding.Subject]*inventory.Object{}
	for _, o := range j.inv.Objects() {
		bySubject[o.Subject()] = o
	}
	for _, f := range before {
		if f.Status != finding.Fail || len(j.in.Controls) > 0 && !slices.Contains(j.in.Controls, f.Control) {
			continue
		}
		ctl := j.controls[f.Control]
		if ctl.Fix.Class != "auto" {
			j.leave(ctl, *f.Subject, ctl.Fix.Class == "suggest")
			continue
		}
		j.candidates = append(j.candidates, j.candidate(ctl, f, bySubject[withoutContainer(*f.Subject)]))
	}
	return nil
}

func withoutContainer(s finding.Subject) finding.Subject {
	s.Container = ""
	return s
}

// leave notes what a person must do.
func (j *job) leave(ctl *control.Control, subject finding.Subject, value bool) {
	i := slices.IndexFunc(j.manual, func(m Manual) bool { return m.Control == ctl.ID })
	if i < 0 {
		i = len(j.manual)
		j.manual = append(j.manual, Manual{Control: ctl.ID, Text: ctl.Fix.Text, Value: value})
	}
	j.manual[i].Subjects = append(j.manual[i].Subjects, subject)
}

func (j *job) candidate(ctl *control.Control, f finding.Finding, o *inventory.Object) *candidate {
	c := &candidate{finding: f, control: ctl}
	if o != nil {
		if w := j.inv.Owner(o); w != nil && w.Object == o {
			c.workload = w
		}
	}
	switch {
	case byPolicies[ctl.ID]:
		c.network = f.Subject.Name
		if c.workload != nil {
			c.network = j.inv.NamespaceOf(o)
			c.objects = j.broadPolicies(ctl.ID, c.workload)
		}
	case c.workload != nil && podRepairs[ctl.ID] != nil:
		c.objects = []*inventory.Object{o}
	default:
		c.refuse("this kind of object is not changed automatically")
	}
	return c
}

func (j *job) refuseAll(reason string) {
	for _, c := range j.candidates {
		c.refuse("%s", reason)
	}
}

// plan sums up what is left.
func (j *job) plan(before, after []finding.Finding) *Plan {
	p := &Plan{
		Networks: j.networks, Appeared: j.appeared, Proven: j.proven, Denied: j.denied, paths: j.in.Paths,
		Before: control.Summarize(j.in.Catalogue, before), After: control.Summarize(j.in.Catalogue, after),
	}
	for _, c := range j.candidates {
		switch {
		case c.value:
			j.leave(c.control, *c.finding.Subject, true)
		case c.refused != "":
			p.Refused = append(p.Refused, Refusal{c.finding.Control, *c.finding.Subject, c.refused})
		default:
			p.Changes = append(p.Changes, Change{c.finding.Control, *c.finding.Subject, c.what})
		}
	}
	if s := j.sources[stdin]; s != nil {
		p.Stdin = s.data
	}
	p.Manual = j.manual
	slices.SortStableFunc(p.Manual, func(a, b Manual) int { return cmp.Compare(a.Control, b.Control) })
	for _, s := range j.sources {
		if f, changed := s.file(); changed {
			p.Files = append(p.Files, f)
		}
	}
	for _, s := range j.added {
		f, _ := s.file()
		p.Files = append(p.Files, f)
	}
	slices.SortFunc(p.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return p
}

func names(ops []edit.Op) []string {
	var out []string
	for _, op := range ops {
		out = append(out, op.String())
	}
	return out
}
