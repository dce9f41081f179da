package agent

import (
	"fmt"

	"github.com/kubeguardian/kubeguardian/content"
	"github.com/kubeguardian/kubeguardian/correlate"
	"github.com/kubeguardian/kubeguardian/event"
	"github.com/kubeguardian/kubeguardian/rule"
	"github.com/kubeguardian/kubeguardian/sensor/record"
)

// An entrance tells the server of each command that enters a container, whatever
// other rule matches its event: the server looks for the request that let it in.
type entrance struct {
	set    *rule.Set
	wanted [256]bool // by record type
}

// loadEntrance returns nil if the configured rules do not have the rule.
func loadEntrance(c *Config) (*entrance, error) {
	files, err := content.Read[rule.File](content.Rules(), c.Rules...)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	return newEntrance(files)
}

func newEntrance(files []rule.File) (*entrance, error) {
	only := rule.Options{Select: []rule.Selection{{Rule: "*"}, {Rule: correlate.EnteredRule, On: true}}}
	set, results := only.Load(files...)
	if set == nil {
		return nil, rule.Mistakes(results)
	}
	e := &entrance{set: set}
	found := false
	for _, r := range set.Live() {
		found = found || r.Source == event.Syscall
	}
	if !found {
		return nil, nil
	}
	for _, name := range set.Needs().Types() {
		if t, ok := record.TypeOf(name); ok {
			e.wanted[t] = true
		}
	}
	return e, nil
}

// types lists the events that it is about.
func (e *entrance) types() []string {
	if e == nil {
		return nil
	}
	return e.set.Needs().Types()
}

// wants reports whether it is about a type of records.
func (e *entrance) wants(t record.Type) bool { return e != nil && e.wanted[t] }
