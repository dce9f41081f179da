package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
	"github.com/kubeguardian/kubeguardian/inventory"
)

// outside are the kinds of subject that exist in every system, whether or not
// an object or a piece of evidence speaks of them: a control on one of them is
// unknown until something does. (A kind of Kubernetes objects has a subject for
// each object, and none without.)
var outside = map[string]bool{
	"CloudFirewall": true,
	"CloudIdentity": true,
	"CloudWAF":      true,
	"Cluster":       true,
	"ControlPlane":  true,
	"Node":          true,
	"Pipeline":      true,
	"Repository":    true,
}

// wanted says how evidence of each kind is had.
var wanted = map[evidence.Kind]string{
	evidence.API:      "scan the cluster (--cluster)",
	evidence.Node:     "give what scan --node writes",
	evidence.Cloud:    "give a Terraform plan",
	evidence.IaC:      "give a Terraform plan",
	evidence.Image:    "give a scan or an SBOM of the image",
	evidence.Registry: "give signatures and provenance of the image",
	evidence.Repo:     "name the source folder",
	evidence.Attest:   "give the reports of the pipeline",
	evidence.DAST:     "give the report of a dynamic scan",
	evidence.Probe:    "attest it",
	evidence.Runtime:  "run kubeguardian serve",
	evidence.Audit:    "send the audit log to kubeguardian serve",
}

// elsewhere returns the state of a control of which neither the inventory nor
// our own evidence says anything: the verdicts of other tools, else unknown.
func (e *evaluation) elsewhere(ctl *Control) []finding.Verdict {
	kind := ctl.outside()
	if kind == "" {
		return nil
	}
	if found := e.foreign(ctl, kind); len(found) > 0 {
		return found
	}
	hint := "only a statement can settle it: " + ctl.Attestation
	if ctl.Evaluator != byAttestation {
		var ways []string
		for _, k := range ctl.Evidence {
			way := wanted[k]
			switch {
			case k == evidence.API && e.inv.Origin == inventory.Cluster:
				way = "the cluster shows nothing of it"
			case k == evidence.Runtime && len(e.evidence.Heartbeats) > 0: // it is serve that asks, or somebody who watches as it does
				way = "nothing that watches the cluster says anything of it"
			}
			if !slices.Contains(ways, way) {
				ways = append(ways, way)
			}
		}
		hint = strings.Join(ways, ", or ")
	}
	return []finding.Verdict{{
		Status: finding.Unknown, Reason: "no evidence: " + hint, Subject: finding.Subject{Kind: kind},
	}}
}

// outside returns the kind of subject that exists in every system, or "".
func (ctl *Control) outside() string {
	if at := slices.IndexFunc(ctl.Subjects, func(s string) bool { return outside[s] }); at >= 0 {
		return ctl.Subjects[at]
	}
	return ""
}

// heard lets other tools speak of subjects that our own evidence leaves
// unknown or does not know. A verdict without a subject is of the only one that
// is unknown; of several nobody knows which, and it stands beside them.
func (e *evaluation) heard(ctl *Control, states []finding.Verdict) []finding.Verdict {
	open := func(f finding.Verdict) bool { return f.Status == finding.Unknown }
	kind := ctl.outside()
	if kind == "" || len(states) == 0 {
		return states
	}
	unknown := count(states, open)
	out := slices.Clone(states)
	for _, f := range e.foreign(ctl, kind) {
		named := func(s finding.Verdict) bool { return s.Subject.Name == f.Subject.Name }
		at := slices.IndexFunc(out, named)
		if at < 0 && f.Subject.Name == "" && unknown == 1 {
			at = slices.IndexFunc(out, open)
		}
		switch {
		case open(f): // ours says more
		case at < 0 && f.Subject.Name == "" && unknown == 0: // of one that is settled
		case at < 0:
			out = append(out, f)
		case open(out[at]):
			f.Subject = out[at].Subject
			out[at] = f
		}
	}
	return out
}

func count(findings []finding.Verdict, like func(finding.Verdict) bool) int {
	n := 0
	for _, f := range findings {
		if like(f) {
			n++
		}
	}
	return n
}

// foreign returns what other tools say of a control through the items of a
// framework that it is mapped to: for each subject of theirs a failure if any
// item failed, and a pass if all of them passed. The newest verdict on an item
// counts. Of two versions of a framework the newest that has verdicts counts.
func (e *evaluation) foreign(ctl *Control, kind string) []finding.Verdict {
	for _, framework := range []string{"cis-1.12", "cis-1.10"} {
		items := map[string]map[string]evidence.Verdict{} // by subject, then item
		for _, item := range ctl.Frameworks[framework] {
			for _, v := range e.evidence.VerdictsFor(framework, item) {
				of := items[v.Subject]
				if of == nil {
					of = map[string]evidence.Verdict{}
					items[v.Subject] = of
				}
				if _, newer := of[item]; !newer {
					of[item] = v
				}
			}
		}
		var out []finding.Verdict
		for _, subject := range slices.Sorted(maps.Keys(items)) {
			f := judgeItems(ctl.Frameworks[framework], items[subject])
			f.Subject = finding.Subject{Kind: kind, Name: subject}
			out = append(out, f)
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

func judgeItems(items []string, verdicts map[string]evidence.Verdict) finding.Verdict {
	f := finding.Verdict{Status: finding.Pass}
	var missing []string
	var seen time.Time
	for _, item := range items {
		v, have := verdicts[item]
		switch {
		case !have:
			missing = append(missing, item)
			continue
		case !v.Pass && f.Status != finding.Fail:
			f.Status = finding.Fail
			f.Message = fmt.Sprintf("%s %s: %s", v.Framework, item, cmp.Or(v.Message, "does not hold"))
		}
		if seen.IsZero() || v.SeenAt.Before(seen) {
			seen = v.SeenAt
		}
		f.EvidenceKind, f.Evidence = string(v.Kind), v.Tool+" in "+v.Source
	}
	f.ObservedAt = seen
	if f.Status == finding.Pass && len(missing) > 0 {
		f.Status, f.Evidence = finding.Unknown, ""
		f.Reason = "no verdict on " + strings.Join(missing, ", ")
	}
	return f
}

// settle lets a person's statement make up for missing evidence: an unknown
// state becomes a pass, with who vouches for it. It never touches what an
// unreadable part hides: nobody can vouch for that.
func (e *evaluation) settle(ctl *Control, v finding.Verdict) finding.Verdict {
	if v.Hides != 0 {
		return v
	}
	for i := range e.evidence.Statements {
		s := &e.evidence.Statements[i]
		if s.Control != ctl.ID || !s.Scope.Matches(v.Subject) {
			continue
		}
		if err := s.Valid(e.now); err != nil {
			v.Reason = fmt.Sprintf("the statement of %s (%s) %v", s.By, s.Source, err)
			continue
		}
		v.Status, v.Reason = finding.Pass, ""
		v.Evidence = fmt.Sprintf("%s vouches for it until %s: %s (%s)", s.By, s.Expires.Format(time.DateOnly), s.Text, s.Source)
		v.EvidenceKind, v.ObservedAt = string(evidence.Attestation), s.At
		return v
	}
	return v
}
