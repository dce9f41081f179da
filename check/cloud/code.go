package cloud

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// Code says of each plan, and of each report of a scanner of infrastructure
// code, whether a critical finding is open in it: an entry to the control plane,
// or rights over the whole account.
func Code(set *evidence.Set) []finding.Verdict {
	if set == nil {
		return nil
	}
	all, out := of(set), scans(set)
	if len(all)+len(out) == 0 {
		return noCode(set)
	}
	for i := range all {
		one := &evidence.Set{Plans: all[i : i+1]}
		f := sum(slices.Concat(Endpoints(one), Firewalls(one), nodeRights(one)), all[i].Resources)
		f.Exposure = finding.System
		out = append(out, all.judged("Repository", &all[i], all[i].Source, f))
	}
	return out
}

// sum joins the findings about a plan into one: the failures, else what is not
// known.
func sum(findings []finding.Verdict, resources int) finding.Verdict {
	for _, state := range []finding.Status{finding.Fail, finding.Unknown} {
		var of []finding.Verdict
		for _, found := range findings {
			if found.Status == state {
				of = append(of, found)
			}
		}
		if len(of) > 0 {
			return summary(state, of)
		}
	}
	return pass(fmt.Sprintf("%d resources, no critical finding", resources))
}

// scanners are the tools that read infrastructure code; others of their type
// read manifests only.
var scanners = []string{"checkov", "tfsec", "trivy", "kics", "terrascan", "snyk"}

// scans judges the newest report of each scanner on each repository.
func scans(set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	seen := map[string]bool{}
	for _, a := range set.AnalysesOf(evidence.IaCScan) { // newest first
		name, _, _ := strings.Cut(strings.ToLower(a.Tool), " ")
		repository := evidence.RepositoryName(a.Repository)
		if seen[name+" "+repository] || !slices.Contains(scanners, name) {
			continue
		}
		seen[name+" "+repository] = true
		var critical []string
		for _, r := range a.Results {
			if r.Severity == finding.Critical {
				critical = append(critical, fmt.Sprintf("%s:%d %s", r.File, r.Line, r.Rule))
			}
		}
		f := pass(fmt.Sprintf("%s in %s: no critical finding", a.Tool, a.Source))
		if len(critical) > 0 {
			f = fail(a.Tool+" found what is critical in the infrastructure code", strings.Join(shorten(critical), "; "))
		}
		f.Subject = finding.Subject{Kind: "Repository", Name: repository}
		f.EvidenceKind, f.ObservedAt = string(a.Kind), a.SeenAt
		out = append(out, f)
	}
	return out
}

// summary joins findings of one state into one.
func summary(state finding.Status, found []finding.Verdict) finding.Verdict {
	var names []string
	for _, f := range found {
		names = append(names, f.Subject.Name+": "+f.Message+f.Reason)
	}
	text := strings.Join(shorten(names), "; ")
	if state == finding.Fail {
		f := fail(fmt.Sprintf("%d critical findings in the infrastructure code", len(found)), text)
		if len(found) == 1 {
			f.Message = "a critical finding in the infrastructure code"
		}
		return f
	}
	return finding.Verdict{Status: state, Reason: text}
}

// noCode is for repositories of which no plan is given.
func noCode(set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	for _, r := range set.Repositories {
		f := finding.Verdict{Status: finding.NotApplicable, Reason: "no infrastructure code in the repository"}
		if len(r.Terraform) > 0 {
			f = unknown("%d Terraform files, the first is %s: give their plan, the output of terraform show -json, by --evidence", len(r.Terraform), r.Terraform[0])
		}
		f.Subject = finding.Subject{Kind: "Repository", Name: r.Name}
		f.EvidenceKind, f.ObservedAt = string(r.Kind), r.SeenAt
		out = append(out, f)
	}
	return out
}
