package ruletest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/alert"
	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/enrichment"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
)

// A Result is one case: Err says how it differs from what it should be, or nil.
type Result struct {
	Name   string // file, line, rule and case
	Rule   string // that the case is about; empty for all
	Alert  bool   // it must raise the rule
	Raised []alert.Alert
	Err    error
}

// Run runs the cases of the file in order. The error is for what keeps them from
// running: rules that do not load, a rule that there is not.
func (f *File) Run(ctx context.Context) ([]Result, error) {
	r, err := f.runner()
	if err != nil {
		return nil, err
	}
	var results []Result
	var errs []error
	for _, t := range f.Tests {
		if t.Rule != "" && !r.has(t.Rule) {
			errs = append(errs, fmt.Errorf("%s:%d: rule %q is not among the rules", f.name, t.line, t.Rule))
			continue
		}
		for i, c := range t.cases() {
			if err := ctx.Err(); err != nil {
				return results, err
			}
			result := Result{Name: f.title(t, c), Rule: t.Rule, Alert: i < len(t.Alerts)}
			result.Err = r.run(t, c, &result)
			results = append(results, result)
		}
	}
	return results, errors.Join(errs...)
}

// A runner holds what the cases of a file have in common.
type runner struct {
	*File
	rules  *rule.Set
	policy *recorder // nil to take events as they are given
	enrich *enrichment.Enricher
}

func (f *File) runner() (*runner, error) {
	r := &runner{File: f}
	paths := slices.Clone(f.Rules)
	for i, path := range paths {
		paths[i] = f.path(path)
	}
	files, err := content.Read[rule.File](content.Rules(), paths...)
	if err != nil {
		return nil, fmt.Errorf("%s: read rules: %w", f.name, err)
	}
	if r.rules, err = rule.Load(files...); err != nil {
		return nil, fmt.Errorf("%s: load rules: %w", f.name, err)
	}
	if f.AuditPolicy != "" {
		if r.policy, err = newRecorder(f.path(f.AuditPolicy)); err != nil {
			return nil, fmt.Errorf("%s: read audit policy: %w", f.name, err)
		}
	}
	return r, nil
}

// path returns a path as written in the file, which is relative to its folder.
func (f *File) path(path string) string {
	if filepath.IsAbs(path) || path == content.Builtin {
		return path
	}
	return filepath.Join(filepath.Dir(f.name), path)
}

func (r *runner) has(name string) bool {
	return slices.ContainsFunc(r.rules.Rules(), func(have rule.Rule) bool { return have.Name == name })
}

// run judges one case.
func (r *runner) run(t *ruleTest, c *testCase, result *Result) error {
	r.enrich = enrichment.New()
	for i, e := range c.Before {
		data, err := inline(i, r.Event, t.Event, e)
		if err == nil {
			err = r.each(data, func(*event.Event) error { return nil })
		}
		if err != nil && !errors.Is(err, errNotRecorded) {
			return fmt.Errorf("before[%d]: %w", i, err)
		}
	}
	data, err := r.events(t, c)
	if err != nil {
		return err
	}
	n := 0
	err = r.each(data, func(e *event.Event) error {
		n++
		raised := slices.DeleteFunc(r.rules.Match(e, rule.All), func(a alert.Alert) bool { return t.Rule != "" && a.Rule != t.Rule })
		result.Raised = append(result.Raised, raised...)
		err := silent(raised)
		if result.Alert {
			err = c.wants(raised)
		}
		if err != nil && c.File != "" {
			return fmt.Errorf("event %d: %w", n, err)
		}
		return err
	})
	if !result.Alert && errors.Is(err, errNotRecorded) {
		return nil
	}
	return err
}

// events returns the events of a case as JSON, one on a line.
func (r *runner) events(t *ruleTest, c *testCase) ([]byte, error) {
	if c.File != "" {
		return recorded(r.path(c.File))
	}
	return inline(len(c.Before), r.Event, t.Event, c.Event)
}

// each enriches each event as it is recorded, and calls see with it. Those that
// are not recorded are an error, after all others have been seen.
func (r *runner) each(data []byte, see func(*event.Event) error) error {
	enriched := func(e *event.Event) error {
		r.enrich.Enrich(e)
		return see(e)
	}
	if r.policy == nil {
		return decode(data, enriched)
	}
	missing := error(nil)
	for line := range bytes.Lines(data) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		cut, err := r.policy.cut(line)
		if errors.Is(err, errNotRecorded) {
			missing = err
			continue
		}
		if err == nil {
			err = decode(cut, enriched)
		}
		if err != nil {
			return err
		}
	}
	return missing
}

func silent(raised []alert.Alert) error {
	if len(raised) == 0 {
		return nil
	}
	return fmt.Errorf("raises %s: %s", raised[0].Rule, raised[0].Output)
}

// wants says how the alerts of an event differ from what the case says of them.
func (c *testCase) wants(raised []alert.Alert) error {
	if len(raised) == 0 {
		return errors.New("raises no alert")
	}
	a := raised[0]
	var errs []error
	if c.Priority != "" && a.Priority != c.priority {
		errs = append(errs, fmt.Errorf("priority is %s, want %s", a.Priority, c.priority))
	}
	if !strings.Contains(a.Output, c.Output) {
		errs = append(errs, fmt.Errorf("output %q lacks %q", a.Output, c.Output))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		have, ok := a.OutputFields[name]
		if !ok {
			errs = append(errs, fmt.Errorf("the alert has no field %s: name it in the output of the rule", name))
		} else if have, want := plain(have), plain(c.Fields[name]); have != want {
			errs = append(errs, fmt.Errorf("%s is %s, want %s", name, have, want))
		}
	}
	return errors.Join(errs...)
}

// plain writes a value so that those of YAML and of an alert can be compared.
func plain(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
