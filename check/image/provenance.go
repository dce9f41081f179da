package image

import (
	"cmp"
	"maps"
	"slices"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// statements returns the provenance of what a container runs.
func (im *Images) statements(c *container) (found []*evidence.Provenance, tagOnly bool) {
	digests, tagOnly := im.digestsOf(c)
	for _, digest := range digests {
		for _, p := range im.provenances[digest] {
			if !slices.Contains(found, p) {
				found = append(found, p)
			}
		}
	}
	return found, tagOnly
}

// noProvenance says why there is none.
func (im *Images) noProvenance(c *container) state {
	if digests, _ := im.digestsOf(c); len(digests) == 0 {
		return c.open("which digest of its image runs is not known: pin it by digest, or scan the cluster")
	}
	return c.open("no provenance of its image was given; %s", provenanceHint)
}

// Attested says for each workload whether a builder has attested how its images
// were built. The signatures are not verified here.
func (im *Images) Attested() []finding.Verdict {
	return im.eachImage(func(c *container) state {
		found, tagOnly := im.statements(c)
		out := im.noProvenance(c)
		for i, p := range found {
			if s := attested(p, tagOnly); i == 0 || rank(s.status) > rank(out.status) {
				out = s // the best of several
			}
		}
		return out
	})
}

func attested(p *evidence.Provenance, tagOnly bool) state {
	switch {
	case p.Builder == "":
		return fail(p.Source, "its provenance names no builder")
	case p.Verified:
		return pass("built by %s, signature verified (%s in %s%s)", p.Builder, p.Tool, p.Source, weak(tagOnly))
	case !p.Enveloped:
		return unknown("the statement in %s stands without its envelope, and so without signature", p.Source)
	case p.Signatures == 0:
		return fail(p.Source, "its provenance is not signed")
	}
	return pass("built by %s, signature not verified (%s%s)", p.Builder, p.Source, weak(tagOnly))
}

// Traceable says for each workload whether its images lead back to a commit.
func (im *Images) Traceable() []finding.Verdict {
	return im.eachImage(func(c *container) state {
		found, tagOnly := im.statements(c)
		for _, p := range found {
			if p.Repository != "" && p.Commit != "" {
				return pass("commit %s of %s (%s%s)", p.Commit, p.Repository, p.Source, weak(tagOnly))
			}
		}
		for _, r := range c.reports {
			if cfg := r.Config; cfg != nil && cfg.Source != "" && cfg.Commit != "" {
				return pass("commit %s of %s by the labels of the image (%s)", cfg.Commit, cfg.Source, r).byContents(r)
			}
		}
		if len(found) > 0 {
			return fail(found[0].Source, "its provenance names no commit of a repository")
		}
		return im.noProvenance(c)
	})
}

// The annotations, or labels, by which a workload says what it was built from.
const (
	sourceKey = "org.opencontainers.image.source"
	commitKey = "org.opencontainers.image.revision"
)

// Commits returns the commits that run, by the name of their repository; of
// others nothing is known. Provenance counts before labels.
func (im *Images) Commits() map[string][]string {
	seen := map[string]map[string]bool{}
	note := func(repository, commit string) bool {
		if repository == "" || commit == "" {
			return false
		}
		name := evidence.RepositoryName(repository)
		if seen[name] == nil {
			seen[name] = map[string]bool{}
		}
		seen[name][commit] = true
		return true
	}
	for _, w := range im.inv.Workloads() {
		for _, c := range im.containers[w] {
			im.noteCommits(c, note)
		}
	}
	out := map[string][]string{}
	for name, commits := range seen {
		out[name] = slices.Sorted(maps.Keys(commits))
	}
	return out
}

// noteCommits passes on what a container was built from.
func (im *Images) noteCommits(c *container, note func(repository, commit string) bool) {
	found, _ := im.statements(c)
	known := false
	for _, p := range found {
		known = note(p.Repository, p.Commit) || known
	}
	for _, r := range c.reports {
		if known || r.Config == nil {
			continue
		}
		known = note(r.Config.Source, r.Config.Commit)
	}
	if known {
		return
	}
	labels, annotations := c.workload.Template.Labels, c.workload.Template.Annotations
	note(cmp.Or(annotations[sourceKey], labels[sourceKey]), cmp.Or(annotations[commitKey], labels[commitKey]))
}
