// Package repository judges a source repository: who must agree to a change,
// and which secrets lie in it.
package repository

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/repository"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
)

// each judges every repository of a set, as a subject of a kind.
func each(set *evidence.Set, kind string, judge func(r *evidence.Repository) finding.Verdict) []finding.Verdict {
	if set == nil {
		return nil
	}
	var out []finding.Verdict
	for i := range set.Repositories {
		r := &set.Repositories[i]
		f := judge(r)
		f.Subject.Kind, f.Subject.Name = kind, r.Name
		f.EvidenceKind, f.ObservedAt = string(r.Kind), r.SeenAt
		out = append(out, f)
	}
	return out
}

func pass(format string, args ...any) finding.Verdict {
	return finding.Verdict{Status: finding.Pass, Evidence: fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) finding.Verdict {
	return finding.Verdict{Status: finding.Unknown, Reason: fmt.Sprintf(format, args...)}
}

func notApplicable(reason string) finding.Verdict {
	return finding.Verdict{Status: finding.NotApplicable, Reason: reason}
}

// fail is a failure at places, of which the first is the source of the subject.
func fail(message string, places []string) finding.Verdict {
	f := finding.Verdict{Status: finding.Fail, Message: message, Evidence: strings.Join(shorten(places), "; ")}
	f.Subject.Source, _, _ = strings.Cut(places[0], " ")
	return f
}

// maxNamed bounds the places that one finding lists.
const maxNamed = 5

func shorten(names []string) []string {
	if more := len(names) - maxNamed; more > 0 {
		return append(slices.Clone(names[:maxNamed]), fmt.Sprintf("%d more", more))
	}
	return names
}

// Protected says of each repository whether its default branch takes changes
// only by a reviewed pull request, and keeps its history.
func Protected(set *evidence.Set) []finding.Verdict {
	out := each(set, "Repository", func(r *evidence.Repository) finding.Verdict {
		return unknown("a folder does not show how its branches are protected: give the answer of gh api repos/%s/branches/main/protection, or of OpenSSF Scorecard, by --evidence", ownerAndName(r.Name))
	})
	if set == nil {
		return out
	}
	for _, name := range named(set) {
		f := protection(set, name)
		at := slices.IndexFunc(set.Repositories, func(r evidence.Repository) bool { return r.Is(name) || len(set.Repositories) == 1 && name == "" })
		if at < 0 {
			f.Subject.Name = name
			out = append(out, f)
			continue
		}
		f.Subject.Name = out[at].Subject.Name
		out[at] = f
	}
	return out
}

// ownerAndName returns the last two parts of the name of a repository.
func ownerAndName(name string) string {
	parts := strings.Split(name, "/")
	return strings.Join(parts[max(0, len(parts)-2):], "/")
}

// named returns the repositories whose protection was seen.
func named(set *evidence.Set) []string {
	var out []string
	for _, p := range set.Protections {
		if !slices.ContainsFunc(out, func(have string) bool { return strings.EqualFold(have, p.Repository) }) {
			out = append(out, p.Repository)
		}
	}
	return out
}

// protection judges all that is known of the protection of a repository. Rules
// add up: what one of them demands holds.
func protection(set *evidence.Set, name string) finding.Verdict {
	var p evidence.Protection
	var sources []string
	for _, q := range set.Protections {
		if !strings.EqualFold(q.Repository, name) {
			continue
		}
		p.PullRequest = max(p.PullRequest, q.PullRequest)
		p.Reviewed = max(p.Reviewed, q.Reviewed)
		if p.ForcePush == fact.Unknown || q.ForcePush == fact.No {
			p.ForcePush = q.ForcePush
		}
		if len(sources) == 0 || q.SeenAt.Before(p.SeenAt) {
			p.SeenAt = q.SeenAt
		}
		sources = append(sources, fmt.Sprintf("%s in %s", q.Tool, q.Source))
	}
	f := judgeProtection(p)
	f.Subject.Kind = "Repository"
	f.EvidenceKind, f.ObservedAt = string(evidence.Repo), p.SeenAt
	if f.Status != finding.Unknown {
		f.Evidence = strings.Join(sources, ", ")
	}
	if f.Status == finding.Pass && p.SeenAt.IsZero() {
		f = finding.Verdict{
			Status: finding.Unknown, Subject: f.Subject, EvidenceKind: f.EvidenceKind,
			Reason: sources[0] + " does not say when it was seen: add a key seenAt, as gh api does with --jq '. + {seenAt: (now | todate)}'",
		}
	}
	return f
}

func judgeProtection(p evidence.Protection) finding.Verdict {
	var wrong, missing []string
	for _, demand := range []struct {
		fact        fact.Fact
		wrong, what string
	}{
		{p.PullRequest, "changes can be pushed without a pull request", "pull requests"},
		{p.Reviewed, "nobody else needs to approve a change", "reviews"},
		{p.ForcePush.Not(), "history can be rewritten by a forced push", "forced pushes"},
	} {
		switch demand.fact {
		case fact.No:
			wrong = append(wrong, demand.wrong)
		case fact.Unknown:
			missing = append(missing, demand.what)
		}
	}
	switch {
	case len(wrong) > 0:
		return finding.Verdict{Status: finding.Fail, Message: strings.Join(wrong, ", and ")}
	case len(missing) > 0:
		return unknown("what was given does not speak of %s: give the rulesets of the branch too, or the result of OpenSSF Scorecard", strings.Join(missing, " and "))
	}
	return finding.Verdict{Status: finding.Pass}
}

// Owned says whether all that decides what is deployed and allowed has code
// owners.
func Owned(set *evidence.Set) []finding.Verdict {
	return each(set, "Repository", func(r *evidence.Repository) finding.Verdict {
		var free []string
		for _, p := range r.Sensitive {
			if len(p.Owners) == 0 {
				free = append(free, fmt.Sprintf("%s (%s)", p.Path, p.What))
			}
		}
		switch {
		case len(r.Sensitive) == 0:
			return notApplicable("nothing in the repository decides what is deployed or allowed")
		case r.CodeOwners == "":
			return finding.Verdict{Status: finding.Fail, Message: "no file of code owners", Evidence: strings.Join(shorten(free), ", ")}
		case len(free) > 0:
			f := finding.Verdict{Status: finding.Fail, Message: "paths that decide what is deployed or allowed have no code owner", Evidence: strings.Join(shorten(free), ", ")}
			f.Subject.Source = r.CodeOwners
			return f
		}
		return pass("%s covers %s", r.CodeOwners, plural(len(r.Sensitive), "path"))
	})
}

// Secrets says whether secrets lie in the files or the history of a repository.
// A search that was not whole does not pass; nor does what lies in tests, where
// a secret may be made up, or real.
func Secrets(set *evidence.Set) []finding.Verdict {
	return each(set, "Repository", func(r *evidence.Repository) finding.Verdict {
		var places, tests []string
		for _, l := range r.Leaks {
			if l.Test {
				tests = append(tests, leak(l))
			} else {
				places = append(places, leak(l))
			}
		}
		done := plural(r.Files, "file") + " and the history"
		if r.History != "" {
			done = plural(r.Files, "file") + ", not the history: " + r.History
		}
		switch {
		case len(places) > 0:
			f := fail(counted(len(places), "secret lies", "secrets lie")+" in the repository", places)
			f.Evidence += "; searched " + done + " (values not shown)"
			return f
		case r.History != "":
			return unknown("no secret in %s, but the history was not searched: %s", plural(r.Files, "file"), r.History)
		case len(r.Left) > 0:
			return unknown("no secret was found, but not searched: %s", strings.Join(shorten(r.Left), ", "))
		case len(tests) > 0:
			return unknown("secrets in tests, which may be made up: attest that they are, or remove them: %s", strings.Join(shorten(tests), ", "))
		}
		return pass("no secret in %s", done)
	})
}

// leak says where a secret lies, and of what kind it is.
func leak(l repository.Leak) string {
	if l.Commit != "" {
		return fmt.Sprintf("%s in commit %s (%s)", l.Place, l.Commit, l.Rule)
	}
	return fmt.Sprintf("%s (%s)", l.Place, l.Rule)
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "a " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// plural writes a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Manifests says whether manifests of Secrets lie open in a repository.
func Manifests(set *evidence.Set) []finding.Verdict {
	return each(set, "Repository", func(r *evidence.Repository) finding.Verdict {
		switch {
		case len(r.SecretFiles) > 0:
			f := fail(counted(len(r.SecretFiles), "manifest holds a plain Secret", "manifests hold plain Secrets")+", which base64 does not hide", r.SecretFiles)
			f.Evidence += " (values not shown)"
			return f
		case len(r.Left) > 0:
			return unknown("no plain Secret was found, but not looked at: %s", strings.Join(shorten(r.Left), ", "))
		case len(r.TestSecretFiles) > 0:
			return unknown("plain Secrets in tests, which may be made up: attest that they are, or remove them: %s", strings.Join(shorten(r.TestSecretFiles), ", "))
		}
		return pass("no plain Secret in %s", plural(r.Files, "file"))
	})
}
