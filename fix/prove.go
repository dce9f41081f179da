package fix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/kubeguardian/kubeguardian/control"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/fix/edit"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// rewrite makes the changes of all candidates that are not refused, from the
// start, and returns the inventory that they lead to.
func (j *job) rewrite(ctx context.Context) (*inventory.Inventory, error) {
	for _, s := range j.sources {
		s.reset()
	}
	j.added, j.networks = nil, nil
	var order []*inventory.Object
	todo := map[*inventory.Object][]*candidate{}
	for _, c := range j.candidates {
		c.what = nil
		for _, o := range c.objects {
			if todo[o] == nil {
				order = append(order, o)
			}
			todo[o] = append(todo[o], c)
		}
	}
	for _, o := range order {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		j.repair(ctx, o, todo[o])
	}
	objects := slices.Clone(j.inv.Objects())
	for i, o := range objects {
		objects[i] = j.current(o)
	}
	inv, err := inventory.New(inventory.Files, objects, nil)
	if err != nil {
		return nil, fmt.Errorf("index the changed manifests: %w", err)
	}
	return j.isolate(ctx, inv)
}

// current returns an object as it is after the changes.
func (j *job) current(o *inventory.Object) *inventory.Object {
	at := j.objects[o]
	if at == nil || reflect.DeepEqual(at.document.now[at.index].Object, at.document.first[at.index].Object) {
		return o
	}
	return &inventory.Object{Unstructured: at.document.now[at.index].Unstructured, Source: o.Source}
}

// repair makes the changes of candidates in one object: all at once, or one by
// one where they do not go together.
func (j *job) repair(ctx context.Context, o *inventory.Object, todo []*candidate) {
	todo = slices.DeleteFunc(slices.Clone(todo), func(c *candidate) bool { return c.refused != "" })
	if len(todo) == 0 {
		return
	}
	at, err := j.locate(ctx, o)
	if err != nil {
		for _, c := range todo {
			c.refuse("%v", err)
		}
		return
	}
	// What other changes make possible comes last.
	slices.SortStableFunc(todo, func(a, b *candidate) int { return last(a) - last(b) })
	if j.together(ctx, o, at, todo) {
		return
	}
	for _, c := range todo {
		ops, err := j.ops(o, at.document.now[at.index].Object, c)
		if err == nil && len(ops) > 0 {
			err = at.document.change(ctx, at.index, ops)
		}
		if err != nil {
			c.value = errors.Is(err, errValue)
			c.refuse("%v", err)
			continue
		}
		c.what = append(c.what, names(ops)...)
	}
}

func last(c *candidate) int {
	if c.finding.Control == "CON-SEC-02" {
		return 1
	}
	return 0
}

// together makes all changes of an object at once. It is false, and nothing has
// changed, if one of them fails.
func (j *job) together(ctx context.Context, o *inventory.Object, at *located, todo []*candidate) bool {
	content := at.document.now[at.index].Object
	var all []edit.Op
	what := make([][]string, len(todo))
	for i, c := range todo {
		ops, err := j.ops(o, content, c)
		if err != nil {
			return false
		}
		if content, err = applied(content, ops); err != nil {
			return false
		}
		all, what[i] = append(all, ops...), names(ops)
	}
	if len(all) > 0 && at.document.change(ctx, at.index, all) != nil {
		return false
	}
	for i, c := range todo {
		c.what = append(c.what, what[i]...)
	}
	return true
}

// ops returns the changes that a candidate wants in an object.
func (j *job) ops(o *inventory.Object, content map[string]any, c *candidate) ([]edit.Op, error) {
	if c.network != "" {
		return withoutMetadata(content), nil
	}
	p := newPod(o, content, c.finding.Subject.Container)
	p.digest = j.digest
	return podRepairs[c.finding.Control](p)
}

// A state is what one control says of one subject.
type state struct {
	control string
	subject finding.Subject
}

// states returns the worst finding of each control and subject. Where an object
// is written is no part of it: that of a namespace depends on what is in it.
func states(findings []finding.Finding) map[state]*finding.Finding {
	out := map[state]*finding.Finding{}
	for i := range findings {
		f := &findings[i]
		key := state{f.Control, withoutContainer(*f.Subject)}
		if f.Subject.Kind == "Namespace" {
			key.subject.Source = ""
		}
		if have := out[key]; have == nil || rank(f) > rank(have) {
			out[key] = f
		}
	}
	return out
}

func rank(f *finding.Finding) int {
	return slices.Index([]finding.Status{finding.NotApplicable, finding.Pass, finding.Unknown, finding.Excepted, finding.Fail}, f.Status)
}

// prove compares the findings before and after, and refuses what is not met or
// makes something worse. It is true if nothing was refused.
func (j *job) prove(before, after []finding.Finding) bool {
	old, now := states(before), states(after)
	open := slices.DeleteFunc(slices.Clone(j.candidates), func(c *candidate) bool { return c.refused != "" })
	proven := true
	refuse := func(c *candidate, format string, args ...any) {
		if c.refused == "" {
			c.refuse(format, args...)
			proven = false
		}
	}
	for _, c := range open {
		switch f := now[keyOf(c.finding)]; {
		case f == nil:
			refuse(c, "it is no longer judged after the change")
		case f.Status == finding.Fail && c.network != "":
			refuse(c, "more policies would not meet it: %s", f.Message) // one that is there allows it
		case f.Status == finding.Fail:
			refuse(c, "it would still not be met: %s", f.Message)
		case f.Status == finding.Unknown:
			refuse(c, "it cannot be proven: %s", f.Reason)
		}
	}
	j.appeared = nil
	lower := lowered(j.in.Catalogue, before, after)
	for i := range after {
		f := &after[i]
		key := keyOf(*f)
		if now[key] != f || f.Status != finding.Fail && f.Status != finding.Unknown {
			continue
		}
		was := old[key]
		switch {
		case was != nil && rank(f) <= rank(was):
		case len(j.controls[f.Control].Parts) > 0: // sums up what is compared here anyway
			j.appeared = append(j.appeared, *f)
		case (was == nil || was.Status == finding.NotApplicable) && !lower && (was != nil || f.Status == finding.Unknown):
			j.appeared = append(j.appeared, *f)
		default:
			how := "get worse for"
			if was != nil && was.Status == finding.NotApplicable {
				how = "apply then, and have to be met as well, by"
			}
			for _, c := range blamed(open, *f.Subject) {
				refuse(c, "%s would %s %s: %s%s", f.Control, how, f.Subject, f.Message, f.Reason)
			}
		}
	}
	return proven
}

func keyOf(f finding.Finding) state {
	key := state{f.Control, withoutContainer(*f.Subject)}
	if f.Subject.Kind == "Namespace" {
		key.subject.Source = ""
	}
	return key
}

// lowered reports whether the score has fallen.
func lowered(catalogue *control.Catalogue, before, after []finding.Finding) bool {
	old, now := control.Summarize(catalogue, before), control.Summarize(catalogue, after)
	return old.Total != nil && (now.Total == nil || *now.Total < *old.Total-1e-9)
}

// blamed returns those of the open candidates that can have changed what is said
// of a subject: those of the subject, else those that add policies to its
// namespace, else those in its namespace, else all.
func blamed(open []*candidate, s finding.Subject) []*candidate {
	namespace := s.Namespace
	if s.Kind == "Namespace" {
		namespace = s.Name
	}
	for _, near := range []func(c *candidate) bool{
		func(c *candidate) bool { return withoutContainer(*c.finding.Subject) == withoutContainer(s) },
		func(c *candidate) bool { return c.network != "" && c.network == namespace },
		func(c *candidate) bool { return c.finding.Subject.Namespace == namespace },
	} {
		if found := slices.DeleteFunc(slices.Clone(open), func(c *candidate) bool { return !near(c) }); len(found) > 0 {
			return found
		}
	}
	return open
}

// accepted asks the cluster about every object that has changed, and refuses
// the changes of those that it does not take. It is true if nothing was
// refused, or if there is no cluster to ask.
func (j *job) accepted(ctx context.Context) bool {
	if j.in.DryRun == nil {
		return true
	}
	j.proven = 0
	fine := true
	for _, o := range j.inv.Objects() {
		now := j.current(o)
		if now == o {
			continue
		}
		if err := j.in.DryRun(ctx, now.Unstructured); err != nil {
			fine = false
			j.deny(o, err)
			for _, c := range j.candidates {
				if slices.Contains(c.objects, o) {
					c.refuse("the API server refuses it: %v", err)
				}
			}
			continue
		}
		j.proven++
	}
	for _, n := range j.networks {
		for _, o := range n.Objects {
			if err := j.in.DryRun(ctx, o.Unstructured); err != nil {
				fine = false
				j.deny(o, err)
				for _, c := range j.candidates {
					if c.network == n.Namespace {
						c.refuse("the API server refuses %s: %v", o.Subject(), err)
					}
				}
				break
			}
			j.proven++
		}
	}
	return fine
}

// deny notes that the API server does not take a changed object. Once its
// changes are refused it is not asked for again.
func (j *job) deny(o *inventory.Object, err error) {
	s := o.Subject()
	j.denied = append(j.denied, fmt.Errorf("%s: the API server refuses the changed %s: %w", cmp.Or(s.Source, "new"), s, err))
}
