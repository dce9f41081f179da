package ruletest

import (
	"bytes"
	"cmp"
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
	"github.com/kubeguardian/kubeguardian/sensor/syscall"
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
		source, err := r.source(t)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", f.name, t.line, err))
			continue
		}
		for i, c := range t.cases() {
			if err := ctx.Err(); err != nil {
				return results, err
			}
			result := Result{Name: f.title(t, c), Rule: t.Rule, Alert: i < len(t.Alerts)}
			result.Err = r.run(source, t, c, &result)
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

// source returns the source of the events of a test: that of its rule.
func (r *runner) source(t *ruleTest) (string, error) {
	source := cmp.Or(r.Source, event.K8sAudit)
	if t.Rule != "" {
		rules := r.rules.Rules()
		i := slices.IndexFunc(rules, func(have rule.Rule) bool { return have.Name == t.Rule })
		if i < 0 {
			return "", fmt.Errorf("rule %q is not among the rules", t.Rule)
		}
		if source = rules[i].Source; r.Source != "" && source != r.Source {
			return "", fmt.Errorf("rule %q is of the source %s, the file says %s", t.Rule, source, r.Source)
		}
	}
	if source == event.Syscall && r.policy != nil {
		return "", errors.New("an audit policy says nothing of system calls: test them in a file without auditPolicy")
	}
	return source, nil
}

// run judges one case.
func (r *runner) run(source string, t *ruleTest, c *testCase, result *Result) error {
	r.enrich = enrichment.New()
	for i, e := range c.Before {
		data, err := inline(source, i, r.Event, t.Event, e)
		if err == nil {
			err = r.inline(source, data, func(*event.Event) error { return nil })
		}
		if err != nil && !errors.Is(err, errNotRecorded) {
			return fmt.Errorf("before[%d]: %w", i, err)
		}
	}
	n := 0
	err := r.events(source, t, c, func(e *event.Event) error {
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

// events calls see with each event of a case.
func (r *runner) events(source string, t *ruleTest, c *testCase, see func(*event.Event) error) error {
	if c.File == "" {
		data, err := inline(source, len(c.Before), r.Event, t.Event, c.Event)
		if err != nil {
			return err
		}
		return r.inline(source, data, see)
	}
	data, err := recorded(r.path(c.File))
	if err != nil {
		return err
	}
	if source == event.K8sAudit {
		return r.each(data, see)
	}
	n, err := syscall.Read(r.path(c.File), bytes.NewReader(data), see)
	if err == nil && n == 0 {
		err = errors.New("no event")
	}
	return err
}

// inline calls see with an event that stands in the file of tests.
func (r *runner) inline(source string, data []byte, see func(*event.Event) error) error {
	if source == event.Syscall {
		return decodeCall(data, see)
	}
	return r.each(data, see)
}

// each enriches each audit event as it is recorded, and calls see with it. Those that
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
