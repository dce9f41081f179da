package repository

import (
	"fmt"
	"strings"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/evidence/repository"
	"github.com/kubeguardian/kubeguardian/fact"
	"github.com/kubeguardian/kubeguardian/finding"
)

const noPipeline = "no pipeline is set up in the repository"

// opaque returns why a workflow could not be read; "" if all could.
func opaque(r *evidence.Repository) string {
	for _, w := range r.Workflows {
		if w.Opaque != "" {
			return w.Place + ": " + w.Opaque
		}
	}
	return ""
}

// Pinned says whether a pipeline takes actions, templates and images of others
// by digest or commit, so that nobody can exchange them.
func Pinned(set *evidence.Set) []finding.Verdict {
	return each(set, "Repository", func(r *evidence.Repository) finding.Verdict {
		var loose []string
		all := 0
		for _, w := range r.Workflows {
			for _, d := range w.Uses {
				if all++; !d.Pinned {
					loose = append(loose, fmt.Sprintf("%s %s", d.Place, d.Name))
				}
			}
		}
		switch {
		case len(loose) > 0:
			return fail(fmt.Sprintf("%d of %d actions and images are not pinned", len(loose), all), loose)
		case len(r.Workflows) == 0:
			return notApplicable(noPipeline)
		case opaque(r) != "":
			return unknown("%s", opaque(r))
		}
		return pass("all actions and images are pinned: %d", all)
	})
}

// ReadOnly says whether the token of a pipeline may only read by default.
func ReadOnly(set *evidence.Set) []finding.Verdict {
	return each(set, "Repository", func(r *evidence.Repository) finding.Verdict {
		var writes, silent []string
		for _, w := range r.Workflows {
			writes = append(writes, w.Writes...)
			if w.ReadOnly == fact.Unknown {
				silent = append(silent, w.Place)
			}
		}
		switch {
		case len(writes) > 0:
			return fail("the token of the pipeline may write by default", writes)
		case len(r.Workflows) == 0:
			return notApplicable(noPipeline)
		case len(silent) > 0:
			return unknown("what the token may do is not said, so a setting of the code host decides: %s", strings.Join(shorten(silent), ", "))
		}
		return pass("the token may only read in %s", plural(len(r.Workflows), "workflow"))
	})
}

// Credentials says whether a pipeline holds credentials for clouds and clusters
// that do not expire.
func Credentials(set *evidence.Set) []finding.Verdict {
	return each(set, "Pipeline", func(r *evidence.Repository) finding.Verdict {
		var lasting, federated, unsure []string
		for _, w := range r.Workflows {
			for _, c := range w.Credentials {
				lasting = append(lasting, fmt.Sprintf("%s %s", c.Place, c.Name))
			}
			federated = append(federated, w.Federated...)
			unsure = append(unsure, doubts(w)...)
		}
		switch {
		case len(lasting) > 0:
			f := fail("the pipeline holds a credential that does not expire", lasting)
			f.Evidence += " (values not seen)"
			return f
		case len(r.Workflows) == 0:
			return notApplicable(noPipeline)
		case len(unsure) > 0:
			return unknown("%s", strings.Join(shorten(unsure), "; "))
		case len(federated) > 0:
			return pass("jobs prove who they are at %s", strings.Join(shorten(federated), ", "))
		}
		return pass("no workflow asks for a credential of a cloud or cluster")
	})
}

// doubts are why a workflow may use credentials that it does not name.
func doubts(w repository.Workflow) []string {
	switch {
	case w.Opaque != "":
		return []string{w.Place + ": " + w.Opaque}
	case len(w.Inherits) > 0:
		return []string{w.Inherits[0] + " hands all secrets to a workflow elsewhere"}
	case w.System == "GitLab CI" && len(w.Federated) == 0:
		return []string{w.Place + ": GitLab hands variables of the project to jobs, which no file shows"}
	}
	return nil
}

// Scanned says whether a pipeline checks manifests before they are deployed, and
// stops if they are wrong.
func Scanned(set *evidence.Set) []finding.Verdict {
	return each(set, "Pipeline", func(r *evidence.Repository) finding.Verdict {
		steps := r.Steps("manifests")
		var weak, unsure []string
		for _, s := range steps {
			what := fmt.Sprintf("%s %s", s.Place, s.Tool)
			switch s.Fails {
			case fact.Yes:
				return pass("%s stops the build", what)
			case fact.No:
				weak = append(weak, what)
			default:
				unsure = append(unsure, what)
			}
		}
		switch {
		case len(unsure) > 0:
			return unknown("whether it stops the build is set on the code host: %s", strings.Join(shorten(unsure), ", "))
		case len(weak) > 0:
			return fail("manifests are scanned, but what is found does not stop the build", weak)
		case !deploys(r):
			return notApplicable("no manifests in the repository")
		case r.Blind() != "":
			return unknown("no scan of manifests was seen; %s", r.Blind())
		}
		return fail("no step scans manifests", []string{r.Workflows[0].Place})
	})
}

// deploys reports whether a repository holds manifests or charts.
func deploys(r *evidence.Repository) bool {
	for _, p := range r.Sensitive {
		if p.What == "manifests" || p.What == "chart" {
			return true
		}
	}
	return false
}
