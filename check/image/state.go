package image

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubeguardian/kubeguardian/evidence"
	"github.com/kubeguardian/kubeguardian/finding"
)

// A state is what is said of one container.
type state struct {
	status   finding.Status
	text     string // the message of a failure, else the reason or the evidence
	evidence string // what was seen, where the text does not say
	kind     evidence.Kind
	seen     time.Time
}

func pass(format string, args ...any) state {
	return state{status: finding.Pass, text: fmt.Sprintf(format, args...)}
}

func fail(seen, format string, args ...any) state {
	return state{status: finding.Fail, text: fmt.Sprintf(format, args...), evidence: seen}
}

func unknown(format string, args ...any) state {
	return state{status: finding.Unknown, text: fmt.Sprintf(format, args...)}
}

func notApplicable(format string, args ...any) state {
	return state{status: finding.NotApplicable, text: fmt.Sprintf(format, args...)}
}

// by dates a state by the report that it rests on.
func (s state) by(r report) state {
	s.kind, s.seen = r.Kind, r.SeenAt
	return s
}

// byContents is for what stays true of a digest: only of a tag does it age.
func (s state) byContents(r report) state {
	if r.tagOnly {
		return s.by(r)
	}
	return s
}

func (r report) String() string {
	s := r.Tool + " in " + r.Source
	if r.tagOnly {
		s += ", matched by tag only, which may have moved since"
	}
	return s
}

// Hints say how evidence is had. They name no image, so that reports can put
// equal reasons together; the image stands in the finding's evidence.
const (
	scanHint       = "run trivy image --format json IMAGE > report.json, and give it by --evidence"
	listHint       = "run trivy image --format cyclonedx IMAGE > sbom.json, and give it by --evidence"
	secretsHint    = "give the ExposedSecretReport of trivy-operator by --evidence"
	signatureHint  = "run cosign verify --output json IMAGE > signature.json, and give it by --evidence"
	provenanceHint = "run cosign download attestation IMAGE > provenance.json, and give it by --evidence"
)

// without says what is missing for an image, and how it is had.
func (c *container) without(what, how string) state {
	switch {
	case c.image.Name == "" && c.image.Digest == "":
		return unknown("it names no image")
	case c.other != "":
		return c.open("what was given is of another digest than runs under the tag of its image; %s", how)
	case len(c.reports) == 0 && how == scanHint:
		what = "scan"
	}
	return c.open("no %s of its image was given; %s", what, how)
}

// open is an unknown state that names the image.
func (c *container) open(format string, args ...any) state {
	s := unknown(format, args...)
	s.evidence = "image " + c.image.String()
	if c.other != "" {
		s.evidence += ", not the one of " + c.other
	}
	return s
}

// eachImage is each for what depends on the image and the exposure alone: it
// asks once for all workloads that share both.
func (im *Images) eachImage(judge func(*container) state) []finding.Verdict {
	type key struct {
		*knowledge
		finding.Exposure
	}
	judged := map[key]state{}
	return im.each(func(c *container) state {
		k := key{c.knowledge, im.exposure(c.workload)}
		s, done := judged[k]
		if !done {
			s = judge(c)
			judged[k] = s
		}
		return s
	})
}

// each returns the state of every workload by what judge says of its
// containers: one that fails decides, then one that is unknown.
func (im *Images) each(judge func(*container) state) []finding.Verdict {
	out := make([]finding.Verdict, 0, len(im.containers))
	var states []state
	for _, w := range im.inv.Workloads() {
		states = states[:0]
		for _, c := range im.containers[w] {
			states = append(states, judge(c))
		}
		for _, status := range []finding.Status{finding.Fail, finding.Unknown, finding.Pass, finding.NotApplicable} {
			var names []string
			var of []state
			for i, s := range states {
				if s.status == status {
					names, of = append(names, im.containers[w][i].name), append(of, s)
				}
			}
			if len(of) > 0 {
				f := join(status, names, of)
				f.Subject = w.Subject()
				f.Subject.Container = strings.Join(names, ",")
				f.Exposure = im.exposure(w)
				out = append(out, f)
				break
			}
		}
	}
	return out
}

// join makes one finding out of the states of containers, dated by the oldest.
func join(status finding.Status, names []string, states []state) finding.Verdict {
	f := finding.Verdict{Status: status}
	var texts, seen []string
	differ := slices.ContainsFunc(states, func(s state) bool { return s.text != states[0].text })
	for i, s := range states {
		if differ {
			texts = append(texts, names[i]+": "+s.text)
		} else {
			texts = []string{s.text}
		}
		if s.evidence != "" {
			seen = append(seen, s.evidence)
		}
		if s.kind != "" && (f.EvidenceKind == "" || s.seen.Before(f.ObservedAt)) {
			f.EvidenceKind, f.ObservedAt = string(s.kind), s.seen
		}
	}
	all := shorten(texts, "; ")
	switch status {
	case finding.Fail:
		f.Message, f.Evidence = all, shorten(unique(seen), "; ")
	case finding.Pass:
		f.Evidence = all
	default:
		f.Reason, f.Evidence = all, shorten(unique(seen), "; ")
	}
	return f
}

// maxShown bounds what one text lists.
const maxShown = 5

// shorten joins the first of many.
func shorten(s []string, by string) string {
	if more := len(s) - maxShown; more > 0 {
		s = append(slices.Clone(s[:maxShown]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(s, by)
}
