// Package pipeline says what the reports of analysis tools show of the code that
// runs: whether it was analysed, and how long findings stay open.
//
// A report counts for the commit that it names. That a tool ran on a commit
// stays true, so that such evidence does not age; what is found in code does.
package pipeline

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

// Pipelines are the repositories that have reports or whose commits run.
type Pipelines struct {
	set     *evidence.Set
	commits map[string][]string // that run, by repository
	now     time.Time
}

// New joins the evidence of set with the commits that run, by the name of their
// repository as [evidence.RepositoryName] writes it.
func New(set *evidence.Set, commits map[string][]string, now time.Time) *Pipelines {
	return &Pipelines{set: set, commits: commits, now: now}
}

// words are what a type of analysis is called.
var words = map[evidence.AnalysisType]string{evidence.SAST: "static analysis", evidence.SCA: "scan of the dependencies"}

// Static says for each repository whether the commits that run were analysed,
// and without a finding of high severity: one that runs was not blocked.
func (p *Pipelines) Static() []finding.Verdict {
	return p.ran(evidence.SAST, func(a *evidence.Analysis) string {
		if high := severe(a.Results); len(high) > 0 {
			return fmt.Sprintf("%s runs, and did not stop the commit: %s", plural(len(high), "finding of high severity", "findings of high severity"), describe(high))
		}
		return ""
	})
}

// Dependencies says for each repository whether the dependencies of the commits
// that run were scanned.
func (p *Pipelines) Dependencies() []finding.Verdict {
	return p.ran(evidence.SCA, func(*evidence.Analysis) string { return "" })
}

// ran judges each repository by whether an analysis of the type ran on each of
// its commits that run, and by what against says of it.
func (p *Pipelines) ran(t evidence.AnalysisType, against func(*evidence.Analysis) string) []finding.Verdict {
	analyses := p.set.AnalysesOf(t)
	var out []finding.Verdict
	missing := 0
	for _, repository := range slices.Sorted(maps.Keys(p.commits)) {
		if f := p.repository(repository, analyses, words[t], against); f.Status != "" {
			out = append(out, f)
		} else {
			missing++
		}
	}
	if len(p.commits) == 0 && len(analyses) > 0 {
		a := analyses[0]
		out = append(out, finding.Verdict{
			Status: finding.Unknown, Subject: subject("Pipeline", a.Repository),
			Reason: "which commit runs is not known; give the provenance of the images by --evidence, or label them with org.opencontainers.image.source and org.opencontainers.image.revision",
		})
	}
	if missing > 0 {
		reason := fmt.Sprintf("no report of a %s of %s whose commits run; give it as SARIF, with versionControlProvenance, by --evidence", words[t], plural(missing, "repository", "repositories"))
		for _, a := range analyses {
			if a.Repository == "" && a.Commit == "" {
				reason = fmt.Sprintf("%s in %s says neither which repository nor which commit it is of; add versionControlProvenance", a.Tool, a.Source)
			}
		}
		out = append(out, finding.Verdict{Status: finding.Unknown, Subject: subject("Pipeline", ""), Reason: reason})
	}
	return out
}

// repository judges one repository; without a report on it there is no finding.
func (p *Pipelines) repository(name string, analyses []*evidence.Analysis, what string, against func(*evidence.Analysis) string) finding.Verdict {
	var own []*evidence.Analysis
	for _, a := range analyses {
		if evidence.RepositoryName(a.Repository) == name || a.Repository == "" && p.runs(name, a.Commit) {
			own = append(own, a)
		}
	}
	f := finding.Verdict{Subject: subject("Pipeline", name)}
	if len(own) == 0 {
		return f
	}
	f.Status, f.EvidenceKind, f.ObservedAt = finding.Pass, string(own[0].Kind), p.now
	var seen []string
	for _, commit := range p.commits[name] {
		of := slices.DeleteFunc(slices.Clone(own), func(a *evidence.Analysis) bool { return !evidence.SameCommit(a.Commit, commit) })
		if len(of) == 0 && own[0].Commit == "" {
			f.Status, f.Reason = finding.Unknown, fmt.Sprintf("%s in %s does not say which commit it is of; add versionControlProvenance", own[0].Tool, own[0].Source)
			return f
		}
		if len(of) == 0 {
			f.Status = finding.Fail
			f.Message = fmt.Sprintf("no %s of commit %s, which runs", what, short(commit))
			f.Evidence = fmt.Sprintf("the newest is of commit %s (%s in %s)", short(own[0].Commit), own[0].Tool, own[0].Source)
			return f
		}
		for _, a := range of {
			if problem := against(a); problem != "" {
				f.Status, f.Message, f.Evidence = finding.Fail, problem, a.Tool+" in "+a.Source
				return f
			}
		}
		seen = append(seen, fmt.Sprintf("%s of commit %s in %s", of[0].Tool, short(commit), of[0].Source))
	}
	f.Evidence = shorten(seen)
	return f
}

// runs reports whether a commit of a repository is one that runs.
func (p *Pipelines) runs(repository, commit string) bool {
	return slices.ContainsFunc(p.commits[repository], func(c string) bool { return evidence.SameCommit(c, commit) })
}

func short(commit string) string { return commit[:min(len(commit), 12)] }

func subject(kind, repository string) finding.Subject {
	return finding.Subject{Kind: kind, Name: evidence.RepositoryName(repository)}
}

func severe(results []evidence.Result) []evidence.Result {
	return slices.DeleteFunc(slices.Clone(results), func(r evidence.Result) bool { return !r.Severity.AtLeast(finding.High) })
}

// Open says for each repository with static analysis how long its findings have
// been open.
func (p *Pipelines) Open() []finding.Verdict {
	byRepository := map[string][]*evidence.Analysis{}
	for _, a := range p.set.AnalysesOf(evidence.SAST) {
		name := evidence.RepositoryName(a.Repository)
		byRepository[name] = append(byRepository[name], a)
	}
	var out []finding.Verdict
	for _, name := range slices.Sorted(maps.Keys(byRepository)) {
		f := p.open(byRepository[name])
		f.Subject = subject("Repository", name)
		out = append(out, f)
	}
	return out
}

// open judges the analyses of one repository, newest first, by the newest of
// each tool. Since when a finding is open says the report, or the oldest report
// that has it.
func (p *Pipelines) open(analyses []*evidence.Analysis) finding.Verdict {
	newest := map[string]*evidence.Analysis{}
	since := map[string]time.Time{}
	for _, a := range analyses {
		tool, _, _ := strings.Cut(a.Tool, " ")
		if newest[tool] == nil {
			newest[tool] = a
		}
		for _, r := range a.Results {
			key := tool + "\x00" + r.Rule + "\x00" + r.File
			for _, t := range []time.Time{r.Since, a.SeenAt} {
				if old := since[key]; !t.IsZero() && (old.IsZero() || t.Before(old)) {
					since[key] = t
				}
			}
		}
	}
	var past, undated []evidence.Result
	f := finding.Verdict{Status: finding.Pass}
	var seen []string
	for _, tool := range slices.Sorted(maps.Keys(newest)) {
		a := newest[tool]
		if f.EvidenceKind == "" || a.SeenAt.Before(f.ObservedAt) {
			f.EvidenceKind, f.ObservedAt = string(a.Kind), a.SeenAt
		}
		seen = append(seen, a.Tool+" in "+a.Source)
		for _, r := range a.Results {
			limit := limitOf(r.Severity)
			first := since[tool+"\x00"+r.Rule+"\x00"+r.File]
			switch {
			case limit == 0:
			case !first.IsZero() && p.now.Sub(first) > limit:
				past = append(past, r)
			case r.Since.IsZero():
				undated = append(undated, r)
			}
		}
	}
	switch {
	case len(past) > 0:
		f.Status, f.Message = finding.Fail, plural(len(past), "finding is", "findings are")+" open for longer than agreed"
		f.Evidence = describe(past) + " (" + shorten(seen) + ")"
	case len(undated) > 0:
		f.Status, f.Reason = finding.Unknown, fmt.Sprintf("since when %s open is not said; keep earlier reports and give them too, or have the tool write firstDetectionTimeUtc", plural(len(undated), "finding is", "findings are"))
	default:
		f.Evidence = "no finding is open for longer than agreed (" + shorten(seen) + ")"
	}
	return f
}

// limitOf returns how long a finding may stay open; 0 for as long as you like.
func limitOf(s finding.Severity) time.Duration {
	switch s {
	case finding.Critical:
		return evidence.FixCritical
	case finding.High:
		return evidence.FixHigh
	case finding.Medium:
		return evidence.FixMedium
	}
	return 0
}

// Dynamic says whether what can be reached from outside was scanned lately while
// it ran. Where the hosts of Ingresses are known, each of them must be.
func (p *Pipelines) Dynamic(inv *inventory.Inventory, exposure func(*inventory.Workload) finding.Exposure) []finding.Verdict {
	f := finding.Verdict{Subject: subject("Pipeline", "")}
	exposed := func(w *inventory.Workload) bool {
		e := exposure(w)
		return e == finding.Internet || e == finding.ExposureUnknown
	}
	if inv.Origin == inventory.Cluster && len(inv.Gaps) <= 1 && !slices.ContainsFunc(inv.Workloads(), exposed) {
		f.Status, f.Reason = finding.NotApplicable, "nothing can be reached from outside"
		return []finding.Verdict{f}
	}
	analyses := p.set.AnalysesOf(evidence.DASTScan)
	if len(analyses) == 0 {
		return nil
	}
	return []finding.Verdict{p.dynamic(f, analyses, hosts(inv))}
}

// dynamic judges scans, newest first.
func (p *Pipelines) dynamic(f finding.Verdict, analyses []*evidence.Analysis, want []string) finding.Verdict {
	newest := analyses[0]
	age := p.now.Sub(newest.SeenAt)
	f.EvidenceKind, f.ObservedAt = string(newest.Kind), p.now
	f.Evidence = fmt.Sprintf("%s of %s on %s (%s)", newest.Tool, cmp.Or(shorten(newest.Targets), "what it does not name"), newest.SeenAt.Format(time.DateOnly), newest.Source)
	switch {
	case newest.SeenAt.IsZero():
		f.Status, f.Reason, f.Evidence = finding.Unknown, newest.Tool+" in "+newest.Source+" does not say when it ran", ""
		return f
	case age < -evidence.DAST.Lifetime():
		f.Status, f.Reason, f.Evidence = finding.Unknown, newest.Tool+" in "+newest.Source+" is dated in the future", ""
		return f
	case age > evidence.DynamicScanAge:
		f.Status, f.Message = finding.Fail, fmt.Sprintf("the newest dynamic scan is %d days old, and may be %d", int(age.Hours()/24), int(evidence.DynamicScanAge.Hours()/24))
		return f
	}
	if missing := p.unscanned(analyses, want); len(missing) > 0 {
		f.Status, f.Reason, f.Evidence = finding.Unknown, "no dynamic scan of "+shorten(missing)+" in time; give its report by --evidence", ""
		return f
	}
	f.Status = finding.Pass
	return f
}

// unscanned returns the hosts that no scan in time was of.
func (p *Pipelines) unscanned(analyses []*evidence.Analysis, want []string) []string {
	scanned := map[string]bool{}
	for _, a := range analyses {
		if p.now.Sub(a.SeenAt) > evidence.DynamicScanAge {
			continue
		}
		for _, target := range a.Targets {
			host := target
			if _, rest, ok := strings.Cut(target, "://"); ok {
				host = rest
			}
			host, _, _ = strings.Cut(host, "/")
			host, _, _ = strings.Cut(host, ":")
			scanned[strings.ToLower(host)] = true
		}
	}
	return slices.DeleteFunc(want, func(host string) bool { return scanned[host] })
}

// hosts returns the names under which Ingresses and HTTP routes serve, without
// wildcards.
func hosts(inv *inventory.Inventory) []string {
	found := map[string]bool{}
	note := func(v any) {
		if host, ok := v.(string); ok && host != "" && !strings.Contains(host, "*") {
			found[strings.ToLower(host)] = true
		}
	}
	for _, o := range inv.Kind("networking.k8s.io", "Ingress") {
		spec, _ := o.Object["spec"].(map[string]any)
		rules, _ := spec["rules"].([]any)
		for _, rule := range rules {
			if rule, ok := rule.(map[string]any); ok {
				note(rule["host"])
			}
		}
	}
	for _, o := range inv.Kind("gateway.networking.k8s.io", "HTTPRoute") {
		spec, _ := o.Object["spec"].(map[string]any)
		names, _ := spec["hostnames"].([]any)
		for _, name := range names {
			note(name)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func describe(results []evidence.Result) string {
	var lines []string
	for _, r := range results {
		line := r.Rule
		if r.File != "" {
			line += " in " + r.File
		}
		if r.Line > 0 {
			line += fmt.Sprintf(":%d", r.Line)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return shorten(slices.Compact(lines))
}

// maxShown bounds what one text lists.
const maxShown = 5

func shorten(s []string) string {
	if more := len(s) - maxShown; more > 0 {
		s = append(slices.Clone(s[:maxShown]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(s, "; ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
