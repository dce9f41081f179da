package control

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubeguardian/kubeguardian/exception"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// Outcomes says what became of the exceptions of an input, of which findings are
// what Evaluate returned.
func (c *Catalogue) Outcomes(in Input, findings []finding.Finding) []exception.Outcome {
	now := in.Now
	if now.IsZero() {
		now = time.Now().UTC()
	}
	_, outcomes := c.resolver(in.Inventory, now).Resolve(in.Exceptions, findings)
	return outcomes
}

// resolver knows the controls of the catalogue and the objects of an inventory.
func (c *Catalogue) resolver(inv *inventory.Inventory, now time.Time) exception.Resolver {
	return exception.Resolver{
		Covers: func(name, control string) bool {
			ctl := c.byID[control]
			return name == control || ctl != nil && ctl.Family != "" && name == ctl.Family
		},
		Critical: func(name string) bool {
			for _, ctl := range c.controls {
				if (ctl.ID == name || ctl.Family == name) && ctl.Severity == finding.Critical {
					return true
				}
			}
			return false
		},
		Labels: func(s finding.Subject) map[string]string {
			gv, _ := schema.ParseGroupVersion(s.APIVersion)
			if o := inv.Get(gv.Group, s.Kind, s.Namespace, s.Name); o != nil {
				return o.GetLabels()
			}
			return nil
		},
		Now: now,
	}
}

// exceptions says for each exception whether it may be relied upon.
func (e *evaluation) exceptions() []finding.Verdict {
	resolver := e.catalogue.resolver(e.inv, e.now)
	var out []finding.Verdict
	for i := range e.in.Exceptions {
		x := &e.in.Exceptions[i]
		f := finding.Verdict{
			Status: finding.Pass, Exposure: finding.System,
			Subject: finding.Subject{
				APIVersion: exception.APIVersion, Kind: exception.Kind, Namespace: x.Namespace, Name: x.Name, Source: x.Source,
			},
		}
		if err := resolver.Check(x); err != nil {
			f.Status, f.Message = finding.Fail, fmt.Sprintf("%v; it accepts nothing", err)
		} else {
			f.Evidence = fmt.Sprintf("%s answers for it until %s", x.Spec.Owner, x.Spec.Expires)
		}
		out = append(out, f)
	}
	return out
}
