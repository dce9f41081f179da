// Package cloud judges what a Terraform plan or state says of a cloud, together
// with what the cluster shows of it.
//
// A plan that does not speak of something proves nothing: it may be in another
// plan. What is known only after apply is unknown.
package cloud

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
)

// plans are the plans under judgement.
type plans []evidence.Plan

func of(set *evidence.Set) plans {
	if set == nil {
		return nil
	}
	return set.Plans
}

// subject names something in a plan: by its address, and by its file too where
// there are several plans, which may use the same addresses.
func (all plans) subject(kind string, p *evidence.Plan, address string) finding.Subject {
	if len(all) > 1 {
		address = p.Place(address)
	}
	return finding.Subject{Kind: kind, Name: address}
}

// judged completes a state with where it was seen and when.
func (all plans) judged(kind string, p *evidence.Plan, address string, f finding.Verdict) finding.Verdict {
	f.Subject = all.subject(kind, p, address)
	f.EvidenceKind, f.ObservedAt = string(p.Kind), p.SeenAt
	if f.Evidence != "" {
		f.Evidence = p.Source + ": " + f.Evidence
	}
	if f.Status == finding.Fail && f.Exposure == "" {
		f.Exposure = finding.Internet
	}
	if f.Status == finding.Pass && p.SeenAt.IsZero() {
		f.Status, f.Reason = finding.Unknown, undated(p)
	}
	return f
}

func undated(p *evidence.Plan) string {
	return fmt.Sprintf("%s does not say when it was made: give a plan of Terraform 1.5 or later, or add a key seenAt", p.Source)
}

// pending is the state of what is known only after apply.
func pending(what []string) finding.Verdict {
	slices.Sort(what)
	return finding.Verdict{
		Status: finding.Unknown,
		Reason: "known only after apply: " + strings.Join(shorten(slices.Compact(what)), ", ") + "; give the state, or a plan made afterwards",
	}
}

// maxNamed bounds the names that one finding lists.
const maxNamed = 5

func shorten(names []string) []string {
	if more := len(names) - maxNamed; more > 0 {
		return append(slices.Clone(names[:maxNamed]), fmt.Sprintf("%d more", more))
	}
	return names
}

func fail(message, evidence string) finding.Verdict {
	return finding.Verdict{Status: finding.Fail, Message: message, Evidence: evidence}
}

func pass(evidence string) finding.Verdict {
	return finding.Verdict{Status: finding.Pass, Evidence: evidence}
}

func unknown(format string, args ...any) finding.Verdict {
	return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf(format, args...)}
}

// Endpoints says for each managed cluster whether everybody can reach its API.
func Endpoints(set *evidence.Set) []finding.Verdict {
	var out []finding.Verdict
	all := of(set)
	for i := range all {
		for _, c := range all[i].Clusters {
			f := pass(c.Address + " lets in " + strings.Join(shorten(c.From), ", "))
			open := slices.IndexFunc(c.From, everybody)
			switch {
			case c.Public == fact.No:
				f = pass(c.Address + " has no public endpoint")
			case c.Public == fact.Yes && open >= 0:
				f = fail("everybody on the internet can reach the API endpoint", c.Address+" lets in "+c.From[open])
			case len(c.Unknown) > 0:
				f = pending(c.Unknown)
			case len(c.From) == 0:
				f = pass(c.Address + " lets in no address")
			}
			out = append(out, all.judged("Cluster", &all[i], c.Address, f))
		}
	}
	return out
}
